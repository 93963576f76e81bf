use larder_macros::memoize;

#[memoize(cache = CACHE, ttl = 5, options = options())]
async fn load(id: u64) -> u64 {
    id
}

fn main() {}
