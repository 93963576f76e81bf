//! Two programs that are built apart, one of them optimized, make the same keys of the same calls.

mod package;

use package::Package;

#[test]
fn two_programs_agree_on_all_keys() {
    let package = Package::new("keys");
    package.write("src/lib.rs", include_str!("keys/functions.rs"));
    let program = "fn main() { for key in keys::all() { println!(\"{key}\"); } }";
    package.write("examples/one.rs", program);
    package.write(
        "examples/other.rs",
        &format!("#![allow(unused)]\nmod local {{}}\n{program}"),
    );
    let run = |arguments: &[&str]| {
        let output = package.cargo(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).expect("text")
    };
    let one = run(&["run", "--quiet", "--example", "one"]);
    let other = run(&[
        "--config",
        "profile.dev.package.keys.opt-level=3",
        "--config",
        "profile.dev.package.keys.codegen-units=1",
        "run",
        "--quiet",
        "--example",
        "other",
    ]);
    assert_eq!(one, other);
    // And as they were written down.
    assert_eq!(one, include_str!("keys/expected.txt"), "\n{one}");
}
