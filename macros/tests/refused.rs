//! What the macro refuses, and what it says. After a change of a message: `TRYBUILD=overwrite cargo test -p larder-macros`.

#[test]
fn what_is_refused_is_told_where_it_stands() {
    trybuild::TestCases::new().compile_fail("tests/refused/*.rs");
}
