//! What the compiler says where a type will not do: each file in `tests/types` is refused, with the texts behind `//~` in what is
//! said. The rest of it is the compiler's, which changes.

mod package;

use std::fs;
use std::path::Path;

use package::Package;

#[test]
fn what_types_will_not_do_is_told() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/types");
    let package = Package::new("types");
    let mut count = 0;
    for entry in fs::read_dir(cases).expect("the cases") {
        let file = entry.expect("a case").path();
        let name = file.file_stem().expect("a name").to_string_lossy();
        let text = fs::read_to_string(&file).expect("a case");
        package.write(&format!("examples/{name}.rs"), &text);
        let check = package.cargo(&["check", "--quiet", "--example", &name]);
        let said = String::from_utf8_lossy(&check.stderr);
        assert!(!check.status.success(), "{name} compiles");
        for expected in text.lines().filter_map(|line| line.strip_prefix("//~ ")) {
            let is_said = said.contains(expected);
            assert!(is_said, "{name}: not said is: {expected}\n\n{said}");
        }
        count += 1;
    }
    assert!(count >= 7, "the cases were not found");
}
