use larder_macros::memoize;

#[memoize(cache = CACHE, skip(db, trace))]
async fn load(db: &str, id: u64) -> u64 {
    let _ = db;
    id
}

fn main() {}
