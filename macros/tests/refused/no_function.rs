use larder_macros::memoize;

#[memoize(cache = CACHE)]
struct Load;

fn main() {}
