//! Callers as applications write them: that these compile is the test.

use std::collections::HashMap;
use std::time::Duration;

use larder::{Cache, Moka, SharedCache};

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct User {
    id: u64,
    name: String,
}

#[derive(Debug)]
struct AppError(String);

impl From<larder::Error> for AppError {
    fn from(error: larder::Error) -> Self {
        Self(error.to_string())
    }
}

async fn load_user(id: u64) -> User {
    User {
        id,
        name: format!("user {id}"),
    }
}

/// A compute that borrows a local, in a generic function whose future is spawned.
async fn borrowing(cache: impl Cache) -> larder::Result<User> {
    let name = String::from("borrowed");
    let id = 7;
    let loaded = cache
        .get_or_set(&format!("user:{id}"), MINUTE, || async {
            User {
                id,
                name: name.clone(),
            }
        })
        .await?;
    assert_eq!(name, "borrowed");
    Ok(loaded)
}

async fn failing(cache: &impl Cache) -> Result<User, AppError> {
    cache
        .try_get_or_set("user:8", MINUTE, || async {
            Err::<User, _>(AppError("gone".into()))
        })
        .await
}

async fn handler(cache: SharedCache, ids: Vec<u64>) -> larder::Result<Vec<Option<User>>> {
    let keys: Vec<String> = ids.iter().map(|id| format!("user:{id}")).collect();
    let loads = std::sync::atomic::AtomicUsize::new(0);
    cache
        .get_or_set_many(&keys, MINUTE, |missing| {
            loads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            async move {
                let mut users = HashMap::new();
                for key in missing {
                    let id = key.trim_start_matches("user:").parse().unwrap_or(0);
                    users.insert(key, load_user(id).await);
                }
                users
            }
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generic_callers_can_be_spawned() {
    let cache = Moka::new(100);
    let user = tokio::spawn(borrowing(cache.clone()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(user.name, "borrowed");
    let shared: SharedCache = std::sync::Arc::new(cache.clone());
    tokio::spawn(borrowing(shared.clone()))
        .await
        .unwrap()
        .unwrap();
    let users = tokio::spawn(handler(shared, vec![7, 9]))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        users
            .iter()
            .flatten()
            .map(|user| user.id)
            .collect::<Vec<_>>(),
        [7, 9]
    );
    assert_eq!(failing(&cache).await.unwrap_err().0, "gone");
}

#[tokio::test]
async fn bulk_calls_take_borrowed_and_owned_keys() {
    let cache = Moka::new(100);
    let users = [load_user(1).await, load_user(2).await];
    cache
        .set_many(
            users.iter().map(|user| (user.name.as_str(), user.clone())),
            MINUTE,
        )
        .await
        .unwrap();
    assert_eq!(
        cache.get_many::<User>(&["user 1", "nobody"]).await.unwrap(),
        [Some(users[0].clone()), None]
    );
    let keys: Vec<String> = users.iter().map(|user| user.name.clone()).collect();
    assert_eq!(cache.get_dict::<User>(&keys).await.unwrap().len(), 2);
    assert_eq!(cache.delete_many(&keys).await.unwrap(), 2);
    cache.set("n", 1_u32, larder::Ttl::Forever).await.unwrap();
    let spawned = tokio::spawn({
        let cache = cache.clone();
        async move {
            let keys = vec![String::from("n")];
            cache.get_many::<u32>(&keys).await
        }
    });
    assert_eq!(spawned.await.unwrap().unwrap(), [Some(1)]);
}

#[tokio::test]
async fn any_error_type_serves() {
    let cache = Moka::new(100);
    let boxed: Result<u32, Box<dyn std::error::Error + Send + Sync>> = cache
        .try_get_or_set("k", MINUTE, || async { Err("no".into()) })
        .await;
    assert!(boxed.is_err());
    let own: larder::Result<u32> = cache.try_get_or_set("k", MINUTE, || async { Ok(3) }).await;
    assert_eq!(own.unwrap(), 3);
}
