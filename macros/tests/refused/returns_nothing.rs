use larder_macros::memoize;

#[memoize(cache = CACHE)]
async fn load(id: u64) {
    let _ = id;
}

fn main() {}
