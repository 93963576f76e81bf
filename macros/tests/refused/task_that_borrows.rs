use larder_macros::memoize;

#[memoize(cache = CACHE, task)]
async fn load(name: &str) -> Result<usize, String> {
    Ok(name.len())
}

fn main() {}
