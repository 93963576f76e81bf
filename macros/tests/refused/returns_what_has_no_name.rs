use larder_macros::memoize;

#[memoize(cache = CACHE)]
async fn load(id: u64) -> impl Iterator<Item = u64> {
    0..id
}

fn main() {}
