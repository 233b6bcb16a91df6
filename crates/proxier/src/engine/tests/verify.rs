//! The engine repairs what other programs changed, when its caller reports that they may have changed it.

use std::{collections::BTreeSet, time::Duration};

use expect_test::expect;

use super::{check, myapp};
use crate::testing::*;

#[test]
fn the_kernel_is_read_when_it_is_due_and_once() {
    let (mut engine, mut kernel) = start();
    sync(&mut engine, &mut kernel, 0, myapp());
    assert!(engine.has_bound("10.111.98.163".parse().unwrap()));
    kernel.addresses = Some(BTreeSet::new());
    engine.verify_at(Duration::from_secs(5));
    engine.verify_at(Duration::from_secs(9));
    assert_eq!(engine.next_sync(), Duration::from_secs(5));
    check(&sync(&mut engine, &mut kernel, 4, []), expect![""]);
    check(
        &sync(&mut engine, &mut kernel, 5, []),
        expect![[r#"
            + address 10.111.98.163
        "#]],
    );
    assert_eq!(engine.next_sync(), Duration::from_secs(35));
}
