use super::*;
use crate::store::conformance;
use crate::system::private::tests::directory;

#[test]
fn the_system_store_conforms() {
    let state_dir = directory();
    make(state_dir.path()).unwrap();
    conformance::check(&SystemStore { state_dir: state_dir.path() });
}
