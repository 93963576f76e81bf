use larder_macros::memoize;

#[memoize(cache = CACHE, name = "a\nb")]
async fn load(id: u64) -> u64 {
    id
}

fn main() {}
