use larder_macros::memoize;

#[memoize(cache = CACHE, map_err = |error| panic!("{error}"))]
async fn load(id: u64) -> u64 {
    id
}

fn main() {}
