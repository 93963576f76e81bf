use larder_macros::memoize;

#[memoize(cache = CACHE)]
async fn load(id: u64, seen: &mut Vec<u64>) -> u64 {
    seen.push(id);
    id
}

fn main() {}
