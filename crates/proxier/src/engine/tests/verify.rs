//! The engine repairs changes of other programs when its caller reports that they are possible.

use std::{collections::BTreeSet, time::Duration};

use expect_test::expect;

use super::{check, myapp};
use crate::testing::*;

#[test]
fn requested_verification_reads_the_kernel_once_when_due() {
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
