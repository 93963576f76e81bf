use larder_macros::memoize;

#[memoize(cache = CACHE)]
async fn load((id, version): (u64, u32)) -> u64 {
    id + u64::from(version)
}

fn main() {}
