// Functions whose names linkers mangle.
use std::io::Write;

mod shop {
    pub struct Basket<Item> {
        pub items: Vec<Item>,
    }

    impl<Item> Basket<Item> {
        #[inline(never)]
        pub fn total(&self) -> usize {
            let mut sum = 0;
            for round in 0..1_000_000 {
                sum += std::hint::black_box(round) + self.items.len();
            }
            sum
        }
    }
}

fn main() {
    let basket = shop::Basket { items: vec![1, 2, 3] };
    println!("ready");
    std::io::stdout().flush().unwrap();
    loop {
        std::hint::black_box(basket.total());
    }
}
