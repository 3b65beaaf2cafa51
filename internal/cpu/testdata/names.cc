// Functions whose names linkers mangle.
#include <cstdio>
#include <string>
#include <vector>

namespace shop {
template <typename Item> struct Basket {
	std::vector<Item> items;
	__attribute__((noinline)) unsigned long total(const std::string &currency) const
	{
		unsigned long sum = 0;
		for (volatile unsigned long round = 0; round < 1000000; round++)
			sum += items.size() + currency.size();
		return sum;
	}
};
} // namespace shop

int main()
{
	shop::Basket<int> basket{{1, 2, 3}};
	volatile unsigned long sink;

	std::puts("ready");
	std::fflush(stdout);
	for (;;)
		sink = basket.total("EUR");
	return (int)sink;
}
