// Functions of many kinds, with inlined calls and templates.
#include <algorithm>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

namespace shop {
template <typename T> struct Cart {
	std::vector<T> items;
	__attribute__((noinline)) int add(T item)
	{
		items.push_back(item);
		return static_cast<int>(items.size());
	}
	inline int total() const
	{
		int sum = 0;
		for (const T &item : items)
			sum += static_cast<int>(item) * 3 % 7;
		return sum;
	}
};

static inline int twice(int value) { return value * 2 + (value > 3 ? puts("x") : 0); }

__attribute__((noinline)) int check(const Cart<int> &cart) { return twice(cart.total()) + twice(cart.items[0]); }
} // namespace shop

__attribute__((noinline)) static std::map<std::string, int> count(const std::vector<std::string> &words)
{
	std::map<std::string, int> counted;
	for (const auto &word : words)
		counted[word]++;
	return counted;
}

int main(int argc, char **argv)
{
	shop::Cart<int> cart;
	cart.add(argc);
	std::vector<std::string> words(argv, argv + argc);
	std::sort(words.begin(), words.end());
	auto counted = count(words);
	std::printf("%d %zu\n", shop::check(cart), counted.size());
	return 0;
}
