use larder_macros::memoize;

#[memoize(cache = CACHE)]
extern "C" fn load(id: u64) -> u64 {
    id
}

fn main() {}
