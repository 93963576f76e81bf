//! Many items, each for one of several places, asked for all at once.

use std::future::Future;

use futures_util::future::join_all;

use crate::error::{Error, ErrorKind, Result};

/// What was asked of each place, with where its answers belong.
pub(crate) struct Asked<F> {
    groups: Vec<(Vec<usize>, F)>,
    total: usize,
}

/// Groups items by place and asks every place for all of its own. There are `places` places, numbered from 0.
pub(crate) fn scatter<K, F>(
    items: impl IntoIterator<Item = (usize, K)>,
    places: usize,
    ask: impl Fn(usize, Vec<K>) -> F,
) -> Asked<F> {
    let items = items.into_iter();
    // Half as much again as where all have alike.
    let share = items.size_hint().0 * 3 / 2 / places.max(1);
    let room = || (Vec::with_capacity(share), Vec::with_capacity(share));
    let mut groups: Vec<(Vec<usize>, Vec<K>)> = Vec::new();
    groups.resize_with(places, room);
    let mut total = 0;
    for (index, (place, item)) in items.enumerate() {
        if let Some((indexes, items)) = groups.get_mut(place) {
            indexes.push(index);
            items.push(item);
        }
        total += 1;
    }
    let groups = groups.into_iter().enumerate();
    let groups = groups
        .filter(|(_, (indexes, _))| !indexes.is_empty())
        .map(|(place, (indexes, items))| (indexes, ask(place, items)))
        .collect();
    Asked { groups, total }
}

impl<R, A, F> Asked<F>
where
    A: IntoIterator<Item = Result<R>>,
    F: Future<Output = A>,
{
    /// The answers of all places, which work at the same time, in the order of the items.
    pub(crate) async fn answers(self) -> Vec<Result<R>> {
        self.answers_as(|_, answer| answer).await
    }

    /// As [`answers`](Self::answers), each with the index of its item made into something else once all are there.
    pub(crate) async fn answers_as<S>(
        self,
        mut of: impl FnMut(usize, Result<R>) -> Result<S>,
    ) -> Vec<Result<S>> {
        let mut answers: Vec<Option<Result<S>>> = Vec::new();
        answers.resize_with(self.total, || None);
        let asked = self.groups.into_iter();
        let asked = asked.map(|(indexes, asked)| async { (indexes, asked.await) });
        for (indexes, answered) in join_all(asked).await {
            for (index, answer) in indexes.into_iter().zip(answered) {
                answers[index] = Some(of(index, answer));
            }
        }
        let too_little = || Error::new(ErrorKind::Unavailable, "the node answered too little");
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(|| Err(too_little())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_come_in_the_order_of_the_items() {
        let items = [(2, "a"), (0, "b"), (2, "c"), (1, "d"), (7, "nowhere")];
        let answers = scatter(items, 3, |place, items: Vec<&str>| async move {
            let answer = |item: &str| Result::Ok(format!("{item}{place}"));
            // The second place answers too little.
            items
                .into_iter()
                .filter(|_| place != 1)
                .map(answer)
                .collect::<Vec<_>>()
        });
        let answers: Vec<_> = answers
            .answers()
            .await
            .into_iter()
            .map(Result::ok)
            .collect();
        let expected = [Some("a2"), Some("b0"), Some("c2"), None, None];
        assert_eq!(answers, expected.map(|answer| answer.map(str::to_owned)));
    }
}
