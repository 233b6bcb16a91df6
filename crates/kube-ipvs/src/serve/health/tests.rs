use super::*;

const SYNC_PERIOD: Duration = Duration::from_secs(30);

/// An event at a given second.
#[derive(Debug, Clone, Copy)]
enum Step {
    Queued,
    Taken,
    Synced(Family, Outcome),
    /// The expected health of IPv4 and IPv6.
    Is(bool, bool),
}

use Family::{V4, V6};
use Outcome::{Done, Failed, Settled};
use Step::{Is, Queued, Synced, Taken};

fn moment(second: i64) -> Moment {
    Moment {
        elapsed: Duration::from_secs(second.unsigned_abs()),
        wall: Timestamp::from_second(1_700_000_000 + second).unwrap(),
    }
}

fn check(what: &str, steps: &[(i64, Step)]) {
    let mut health = Health::new(SYNC_PERIOD);
    for (at, step) in steps {
        let now = moment(*at);
        match *step {
            Queued => health.queued(now.elapsed),
            Taken => health.taken(),
            Synced(family, outcome) => {
                health.record_sync(family, outcome, now);
            }
            Is(v4, v6) => {
                let report = health.report(now);
                let is = |family: Family| report.status.get(&family.to_string()).is_none_or(|status| status.healthy);
                assert_eq!((is(V4), is(V6)), (v4, v6), "{what}: at {at} s: {report:?}");
                assert_eq!(report.healthy, v4 && v6, "{what}: at {at} s");
            }
        }
    }
}

#[test]
fn update_is_late_after_twice_the_sync_period() {
    check("nothing has happened", &[(0, Is(true, true)), (86_400, Is(true, true))]);
    check(
        "nothing is to be done for a long time",
        &[(0, Queued), (0, Taken), (1, Synced(V4, Settled)), (1, Synced(V6, Settled)), (86_400, Is(true, true))],
    );
    check(
        "no sync takes it in",
        &[(0, Queued), (59, Is(true, true)), (60, Is(false, false)), (61, Taken), (61, Is(false, false))],
    );
    check("it is taken in and not done", &[(0, Queued), (1, Taken), (59, Is(true, true)), (60, Is(false, false))]);
    check(
        "later updates do not put it off",
        &[(0, Queued), (30, Queued), (40, Taken), (50, Queued), (55, Taken), (60, Is(false, false))],
    );
    check(
        "one that arrives during a sync waits for the next one",
        &[
            (0, Queued),
            (1, Taken),
            (2, Queued),
            (3, Synced(V4, Settled)),
            (3, Synced(V6, Settled)),
            (61, Is(true, true)),
            (62, Is(false, false)),
            (63, Taken),
            (64, Synced(V4, Settled)),
            (64, Synced(V6, Settled)),
            (64, Is(true, true)),
        ],
    );
}

#[test]
fn failed_sync_keeps_its_update_waiting() {
    check(
        "of one family",
        &[
            (0, Queued),
            (10, Taken),
            (11, Synced(V4, Failed)),
            (11, Synced(V6, Settled)),
            (59, Is(true, true)),
            (60, Is(false, true)),
            (61, Synced(V4, Settled)),
            (61, Is(true, true)),
        ],
    );
    check(
        "although nothing had arrived: kube-ipvs cannot repair the drift",
        &[(0, Synced(V4, Settled)), (100, Synced(V4, Failed)), (159, Is(true, true)), (160, Is(false, true))],
    );
    check(
        "again and again",
        &[(0, Synced(V6, Failed)), (30, Synced(V6, Failed)), (59, Synced(V6, Failed)), (60, Is(true, false))],
    );
    check(
        "while later syncs have nothing to do with it",
        &[
            (0, Synced(V4, Failed)),
            (0, Synced(V6, Done)),
            (1, Queued),
            (1, Taken),
            (2, Synced(V4, Done)),
            (2, Synced(V6, Done)),
            (60, Is(false, true)),
            (61, Synced(V4, Settled)),
            (61, Is(true, true)),
        ],
    );
}

fn json(report: &Report) -> String {
    serde_json::to_string(report).unwrap()
}

#[test]
fn health_answers_match_the_json_of_kube_proxy() {
    let mut health = Health::new(SYNC_PERIOD);
    let (good, report) = health.report(moment(5)).livez();
    assert!(good);
    assert_eq!(
        json(&report),
        r#"{"lastUpdated":"2023-11-14T22:13:25Z","currentTime":"2023-11-14T22:13:25Z","healthy":true}"#
    );
    health.queued(Duration::from_secs(6));
    health.taken();
    health.record_sync(V4, Settled, moment(7));
    let (good, report) = health.report(moment(70)).livez();
    assert!(!good);
    assert_eq!(
        json(&report),
        r#"{"lastUpdated":"2023-11-14T22:13:27Z","currentTime":"2023-11-14T22:14:30Z","healthy":false,"status":{"IPv4":{"lastUpdated":"2023-11-14T22:13:27Z","healthy":true},"IPv6":{"lastUpdated":"0001-01-01T00:00:00Z","healthy":false}}}"#
    );
    health.record_sync(V6, Settled, moment(71));
    let (good, report) = health.report(moment(72)).healthz();
    assert!(good);
    assert_eq!(
        json(&report),
        r#"{"lastUpdated":"2023-11-14T22:14:32Z","currentTime":"2023-11-14T22:14:32Z","nodeEligible":true,"healthy":true,"status":{"IPv4":{"lastUpdated":"2023-11-14T22:13:27Z","healthy":true},"IPv6":{"lastUpdated":"2023-11-14T22:14:31Z","healthy":true}}}"#
    );
}

#[test]
fn leaving_node_is_ineligible_while_its_proxy_stays_live() {
    let mut health = Health::new(SYNC_PERIOD);
    for (stays, eligible) in [(None, true), (Some(true), true), (Some(false), false), (Some(true), true), (None, false)]
    {
        health.node(stays);
        let report = health.report(moment(1));
        let (good, answer) = report.clone().healthz();
        assert_eq!((good, answer.node_eligible), (eligible, Some(eligible)), "{stays:?}");
        assert!(answer.healthy, "{stays:?}");
        assert!(report.livez().0, "{stays:?}");
    }
}
