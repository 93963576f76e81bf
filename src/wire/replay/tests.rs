use std::time::Duration;

use tokio::time::timeout;

use super::*;

const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(5);

#[cfg(feature = "ring")]
#[tokio::test]
async fn what_is_made_up_for_is_owed_until_it_is() {
    let replay = Replay::new(10);
    replay.owe(["a", "b"]);
    let round = replay.begin_of(&["a", "c"], after(LONG)).await.unwrap();
    assert_eq!(round.keys, [Box::<str>::from("a")]);
    assert!(replay.owes("a") && replay.owes("b") && !replay.owes("c"));
    // Others wait meanwhile, and the supervisor takes the rest alone.
    assert!(replay.begin_of(&["a"], after(SHORT)).await.is_none());
    assert!(replay.enter(&["a"], after(SHORT)).await.is_none());
    drop(round);
    assert!(replay.owes("a"));
    let waits = replay.begin_of(&["a", "b"], after(LONG)).await.unwrap();
    let (second, ()) = tokio::join!(replay.enter(&["b"], after(LONG)), async {
        tokio::task::yield_now().await;
        waits.settle();
    });
    assert_eq!(second.unwrap().keys().count(), 0);
    assert!(replay.is_clear());
}

fn after(bound: Duration) -> Instant {
    Instant::now() + bound
}

fn owing(keys: &[&str]) -> Replay {
    let replay = Replay::new(3);
    replay.owe(keys.iter().copied());
    replay
}

#[test]
fn what_is_owed_is_handed_out_once_and_owed_again_if_it_fails() {
    let replay = owing(&["a", "b", "a"]);
    assert_eq!(replay.debts(), (2, false));
    let round = replay.begin(1).unwrap();
    let rest = replay.begin(9).unwrap();
    assert!(replay.begin(9).is_none());
    assert_eq!((round.keys.len(), rest.keys.len()), (1, 1));
    assert_eq!(replay.debts(), (2, false));
    round.settle();
    assert_eq!(replay.debts(), (1, false));
    drop(rest);
    replay.begin(9).unwrap().settle();
    assert_eq!(replay.debts(), (0, false));
}

#[test]
fn too_many_keys_become_what_they_have_in_common() {
    let replay = owing(&["app:user:1", "app:user:2", "app:users", "app:ü"]);
    assert_eq!(replay.empty().unwrap().prefix, "app:");
    assert_eq!(replay.debts(), (0, true));
    replay.owe(["other"]);
    let before = replay.empty().unwrap();
    assert_eq!(before.prefix, "app:");
    replay.owe_all("ap:");
    replay.owe(["apple"]);
    replay.emptied(&before);
    assert_eq!(replay.debts(), (2, true), "more is to be emptied by now");
    let now = replay.empty().unwrap();
    assert_eq!(now.prefix, "ap");
    replay.emptied(&now);
    assert_eq!(replay.debts(), (1, false), "other is owed still");
}

#[test]
fn what_comes_to_be_owed_during_an_emptying_outlives_it() {
    let replay = Replay::new(3);
    replay.owe_all("app:");
    let emptying = replay.empty().unwrap();
    // The emptying may have passed them already.
    replay.owe(["app:1"]);
    replay.emptied(&emptying);
    assert_eq!(replay.debts(), (1, false));
    replay.owe_all("app:");
    let emptying = replay.empty().unwrap();
    replay.owe_all("app:");
    replay.emptied(&emptying);
    assert_eq!(replay.debts(), (0, true), "once more from the start");
}

#[test]
fn what_is_owed_is_nothing_to_readers() {
    let replay = owing(&["a", "b"]);
    let round = replay.begin(1).unwrap();
    assert!(replay.owes("a") && replay.owes("b") && !replay.owes("c"));
    round.settle();
    replay.begin(1).unwrap().settle();
    assert!(replay.is_clear() && !replay.owes("a"));
    replay.owe_all("c");
    assert!(replay.owes("cd") && !replay.owes("d"));
}

#[test]
fn prefixes_end_between_characters() {
    let common = |a: &str, b: &str| super::common(a.into(), b.into());
    assert_eq!(common("aü", "aö"), "a");
    assert_eq!(common("a", "ab"), "a");
    assert_eq!(common("ab", "a"), "a");
    assert_eq!(common("", "a"), "");
    assert_eq!(common("é", "é"), "é");
}

#[tokio::test]
async fn a_write_that_succeeds_takes_the_debt_with_it() {
    let replay = owing(&["a", "b"]);
    replay
        .enter(&["a", "c"], after(LONG))
        .await
        .unwrap()
        .settle(|_| true);
    assert_eq!(replay.debts(), (1, false));
    drop(replay.enter(&["b"], after(LONG)).await);
    assert_eq!(replay.debts(), (1, false), "it failed, or was dropped");
    replay
        .enter(&["a", "b"], after(LONG))
        .await
        .unwrap()
        .settle(|key| key == "a");
    assert_eq!(replay.debts(), (1, false));
}

#[tokio::test]
async fn a_write_waits_for_the_delete_of_its_key() {
    let replay = owing(&["a"]);
    let round = replay.begin(9).unwrap();
    let write = replay.enter(&["a"], after(LONG));
    tokio::pin!(write);
    assert!(timeout(SHORT, &mut write).await.is_err());
    assert!(replay.enter(&["a"], after(SHORT)).await.is_none());
    replay
        .enter(&["b"], after(LONG))
        .await
        .unwrap()
        .settle(|_| true);
    round.settle();
    timeout(LONG, write)
        .await
        .unwrap()
        .unwrap()
        .settle(|_| true);
    assert_eq!(replay.debts(), (0, false));
}

#[tokio::test]
async fn debts_wake_whoever_makes_up_for_them() {
    let replay = Replay::new(3);
    assert!(timeout(SHORT, replay.owed()).await.is_err());
    let owed = replay.owed();
    tokio::pin!(owed);
    assert!(timeout(SHORT, &mut owed).await.is_err());
    replay.owe(["a"]);
    timeout(LONG, owed).await.unwrap();
}
