//! The memoized functions of the cases.

use larder::memoize;
use serde_json::{Value, json};

use crate::World;

#[memoize(cache = world.cache, skip(world))]
async fn add(world: &World, a: i64, b: i64) -> i64 {
    world.ran("add");
    a + b
}

#[memoize(cache = world.cache, skip(world))]
async fn echo(world: &World, a: &str) -> String {
    world.ran("echo");
    a.to_owned()
}

#[memoize(cache = world.cache, skip(world), unless = a == 1)]
async fn unless(world: &World, a: i64) -> i64 {
    let _ = a;
    world.ran("unless")
}

#[memoize(cache = world.cache, skip(world), force_if = world.is_forced())]
async fn forced(world: &World, a: i64) -> i64 {
    let _ = a;
    world.ran("forced")
}

#[memoize(cache = world.cache, skip(world), store_if = |value: &i64| *value < 5)]
async fn filtered(world: &World, a: i64) -> i64 {
    world.ran("filtered");
    a
}

#[memoize(cache = world.cache, skip(world))]
async fn nothing(world: &World, a: i64) -> Option<i64> {
    let _ = a;
    world.ran("nothing");
    None
}

#[memoize(cache = world.cache, skip(world), cache_none)]
async fn nothing_kept(world: &World, a: i64) -> Option<i64> {
    let _ = a;
    world.ran("nothing_kept");
    None
}

#[memoize(cache = world.cache, skip(world, b))]
async fn ignoring(world: &World, a: i64, b: i64) -> i64 {
    let _ = (a, b);
    world.ran("ignoring")
}

#[memoize(cache = world.cache, skip(world), name = "another")]
async fn named(world: &World, a: i64) -> i64 {
    let _ = a;
    world.ran("named")
}

#[memoize(cache = world.cache, skip(world), source_check)]
async fn checked(world: &World, a: i64) -> i64 {
    let _ = a;
    world.ran("checked")
}

struct Shop<'w> {
    world: &'w World,
    name: &'w str,
}

impl Shop<'_> {
    #[memoize(cache = self.world.cache, key_self = "self.name")]
    async fn price(&self, a: i64) -> String {
        self.world.ran("method");
        format!("{} {a}", self.name)
    }
}

async fn call(world: &World, name: &str, arguments: &[Value]) -> Value {
    let number = |at: usize| arguments[at].as_i64().unwrap();
    match name {
        "add" => json!(add(world, number(0), number(1)).await),
        "echo" => json!(echo(world, arguments[0].as_str().unwrap()).await),
        "unless" => json!(unless(world, number(0)).await),
        "forced" => json!(forced(world, number(0)).await),
        "filtered" => json!(filtered(world, number(0)).await),
        "nothing" => json!(nothing(world, number(0)).await),
        "nothing_kept" => json!(nothing_kept(world, number(0)).await),
        "ignoring" => json!(ignoring(world, number(0), number(1)).await),
        "named" => json!(named(world, number(0)).await),
        "checked" => json!(checked(world, number(0)).await),
        other => panic!("there is no function {other}"),
    }
}

pub(crate) async fn step(world: &World, step: &[Value]) -> Value {
    let name = step.get(1).and_then(Value::as_str).unwrap_or("a");
    let shop = Shop { world, name };
    let number = |at: usize| step[at].as_i64().unwrap();
    match step[0].as_str().unwrap() {
        "call" => return call(world, name, &step[2..]).await,
        "uncached" => return json!(add::uncached(world, number(2), number(3)).await),
        "method" => return json!(shop.price(number(2)).await),
        "delete_memoized" if step.len() > 2 => {
            assert!(add::delete(world, number(2), number(3)).await.unwrap());
        }
        "delete_memoized" => add::delete_all(world).await.unwrap(),
        "delete_instance" => shop.price_delete_instance().await.unwrap(),
        "delete_method" => shop.price_delete_all().await.unwrap(),
        other => panic!("there is no operation {other}"),
    }
    Value::Null
}
