use larder_macros::memoize;

#[memoize(cache = CACHE, task)]
fn load(id: u64) -> Result<u64, String> {
    Ok(id)
}

fn main() {}
