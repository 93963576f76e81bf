use larder_macros::memoize;

#[memoize(cache = CACHE, cache_errors)]
async fn load(id: u64) -> u64 {
    id
}

fn main() {}
