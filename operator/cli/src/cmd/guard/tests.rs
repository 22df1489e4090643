//! Screens of guards in order and in trouble.

use super::*;
use serde_json::Value as Json;

fn test(name: &str, seen: Seen) -> Test {
    Test { name: name.to_owned(), action: GuardAction::Abort, millis: Some(41), trouble: None, seen }
}

fn counted(canary: Option<usize>) -> Seen {
    Seen::Counted(Counted {
        query: "sum by (pod, code) (http_requests_total{namespace=\"shop\"})".to_owned(),
        series: 8,
        pods: (4, canary),
        restarts: false,
        over: canary.map(|_| 0.025),
        recent: ((240, 2), (22_310, 21)),
    })
}

fn alert() -> AlertGuard {
    serde_json::from_value(json!({
        "matchers": [{"label": "alertname", "value": "CheckoutErrors"}],
        "watchdog": [{"label": "alertname", "value": "Watchdog"}],
    }))
    .unwrap()
}

fn firing(name: &str) -> Alert {
    serde_json::from_value(json!({
        "fingerprint": name, "labels": {"alertname": name}, "startsAt": "2026-01-01T00:00:00Z",
        "status": {"state": "active"},
    }))
    .unwrap()
}

fn guard() -> Guard {
    serde_json::from_value(json!({"name": "pages", "alert": {"matchers": []}})).unwrap()
}

#[test]
fn what_guards_see() {
    let mut bad =
        test("slow", Seen::Counted(Counted { query: "q".to_owned(), pods: (0, None), ..Counted::default() }));
    bad.trouble = Some(("NoCommonBuckets".to_owned(), "set sloMilliseconds to one of 0.1, 0.5".to_owned()));
    let fires = Ok(vec![firing("Watchdog"), firing("CheckoutErrors")]);
    let tests = [
        test("error-rate", counted(None)),
        test("during-a-run", counted(Some(1))),
        bad,
        test(
            "restarts",
            Seen::Counted(Counted {
                pods: (4, Some(1)),
                restarts: true,
                recent: ((295, 2), (1180, 0)),
                ..Counted::default()
            }),
        ),
        test(
            "queue",
            Seen::Value(Value { query: "max(queue)".to_owned(), values: (Some(12.5), Some(11.0)) }),
        ),
        alerts(&guard(), &alert(), &fires, "", 12),
        alerts(&guard(), &alert(), &Ok(vec![firing("Other")]), "", 12),
        alerts(
            &guard(),
            &alert(),
            &Err("http://alertmanager:9093: can't connect".to_owned()),
            &alertmanager_hint("http://alertmanager:9093"),
            3,
        ),
    ];
    let lines = screen::lines(&tests, Some("the installation's settings can't be read"), 100);
    let text: String = lines.iter().map(|line| line.paint(false) + "\n").collect();
    insta::assert_snapshot!(text);
    let document = document("checkout", "shop", &tests, &Settings::default());
    let states: Vec<&str> =
        document["guards"].as_array().unwrap().iter().map(|g| g["state"].as_str().unwrap()).collect();
    assert_eq!(
        states,
        ["Ok", "Ok", "NoCommonBuckets", "Ok", "Ok", "Ok", "AlertSourceMissing", "AlertSourceMissing"]
    );
    assert_eq!(
        document["guards"][1]["lastFiveMinutes"]["canary"],
        json!({"pods": 1, "requests": 240, "failed": 2})
    );
    assert_eq!(document["guards"][0]["lastFiveMinutes"]["canary"], Json::Null);
}

#[test]
fn a_guard_that_is_not_there_is_named() {
    let plan: Plan = serde_json::from_value(json!({
        "digest": "", "riskClass": "R1", "provenance": "Human", "steps": [], "minSamples": 1,
        "tolerancePpm": {"relative": 0, "absolute": 0}, "noDataSeconds": 1, "watchSeconds": 1,
        "progressDeadlineSeconds": 1, "service": "web", "stableService": "web-stable", "canaryService": "web-canary",
        "routes": [], "apexCallers": "Some", "settleSeconds": 1, "drainSeconds": 1,
        "guards": [{"name": "errors", "errorRatio": {}}],
    }))
    .unwrap();
    assert_eq!(chosen(&plan, &[]).unwrap().len(), 1);
    let failure = chosen(&plan, &["latency".to_owned()]).unwrap_err();
    assert!(failure.text.contains("only errors") && failure.code == Code::Usage, "{failure}");
}
