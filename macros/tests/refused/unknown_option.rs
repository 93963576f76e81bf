use larder_macros::memoize;

#[memoize(cache = CACHE, lifetime = 5)]
async fn load(id: u64) -> u64 {
    id
}

fn main() {}
