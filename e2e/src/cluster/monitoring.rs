//! Prometheus and Alertmanager: their configuration, what scenarios ask of them, and how they are taken away.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyper::Method;
use serde_json::Value;

use super::process::{Processes, Spec};
use super::{ADDRESSES, discovery, until};
use crate::http;

const ALERTMANAGER: &str = "\
route: {receiver: none, group_wait: 0s, group_interval: 1s, repeat_interval: 1h}
receivers: [{name: none}]
";

/// The monitoring of one cluster.
#[derive(Clone)]
pub struct Monitoring {
    dir: PathBuf,
    scrape_interval: Duration,
    processes: Processes,
}

impl Monitoring {
    pub(super) fn new(run_dir: &Path, scrape: Duration, processes: Processes) -> Result<Self> {
        let dir = run_dir.join("monitoring");
        fs::create_dir_all(dir.join("rules")).with_context(|| dir.display().to_string())?;
        Ok(Self { dir, scrape_interval: scrape, processes })
    }

    pub(super) fn start(&self, tools: &Path, rules: Option<&str>) -> Result<()> {
        fs::write(self.dir.join("prometheus.yaml"), self.config()).context("Prometheus configuration")?;
        fs::write(self.dir.join("alertmanager.yaml"), ALERTMANAGER).context("Alertmanager configuration")?;
        if let Some(rules) = rules {
            fs::write(self.dir.join("rules/rules.yaml"), rules).context("rules")?;
        }
        let file = |name: &str| self.dir.join(name).display().to_string();
        self.processes.start(Spec {
            name: "prometheus",
            program: tools.join("bin/prometheus"),
            args: vec![
                format!("--config.file={}", file("prometheus.yaml")),
                format!("--storage.tsdb.path={}", file("tsdb")),
                "--web.listen-address=127.0.0.1:9090".into(),
                "--web.enable-lifecycle".into(),
                // A reload forgets the Alertmanager for some seconds, and an alert of that moment would only be sent
                // again after a minute.
                "--rules.alert.resend-delay=1s".into(),
                "--scrape.discovery-reload-interval=1s".into(),
                "--log.level=warn".into(),
            ],
            env: Vec::new(),
        })?;
        self.processes.start(Spec {
            name: "alertmanager",
            program: tools.join("bin/alertmanager"),
            args: vec![
                format!("--config.file={}", file("alertmanager.yaml")),
                format!("--storage.path={}", file("alertmanager")),
                "--web.listen-address=127.0.0.1:9093".into(),
                "--cluster.listen-address=".into(),
                "--log.level=warn".into(),
            ],
            env: Vec::new(),
        })
    }

    /// Pods by their own address with the labels `namespace` and `pod`, as the common charts have them; Traefik; and
    /// Sluice's own pods, which are known by their port, with the labels of their series as the chart's monitors say.
    fn config(&self) -> String {
        let interval = format!("{}ms", self.scrape_interval.as_millis());
        let pods = |job: &str, keep: &str, port: &str| {
            format!(
                "\
- job_name: {job}
  http_sd_configs: [{{url: 'http://{pods}/', refresh_interval: 1s}}]
  relabel_configs:
  - {{source_labels: [__meta_kubernetes_pod_phase], regex: Running, action: keep}}
{keep}
  - {{source_labels: [__meta_kubernetes_pod_ip], regex: (.+), replacement: '$1:{port}', target_label: __address__}}
  - {{source_labels: [__meta_kubernetes_namespace], target_label: namespace}}
  - {{source_labels: [__meta_kubernetes_pod_name], target_label: pod}}
",
                pods = discovery::ADDRESS
            )
        };
        let fake = "  - {source_labels: [__meta_kubernetes_pod_node_name], regex: fake-.*, action: keep}";
        let sluice =
            "  - {source_labels: [__meta_kubernetes_pod_container_port_number], regex: '9464', action: keep}";
        format!(
            "\
global: {{scrape_interval: {interval}, scrape_timeout: {interval}, evaluation_interval: {interval}}}
rule_files: [{rules}/*.yaml]
alerting:
  alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:9093']}}]}}]
scrape_configs:
{fake}{sluice}  honor_labels: true
- job_name: kube-state-metrics
  honor_labels: true
  static_configs: [{{targets: ['{state}']}}]
- job_name: traefik
  static_configs: [{{targets: ['127.0.0.1:8898']}}]
",
            rules = self.dir.join("rules").display(),
            state = discovery::ADDRESS,
            fake = pods("pods", fake, "8080"),
            sluice = pods("sluice", sluice, "9464"),
        )
    }

    pub(super) async fn ready(&self) -> Result<()> {
        for (what, url) in [("Prometheus", ADDRESSES.prometheus), ("Alertmanager", ADDRESSES.alertmanager)] {
            let url = format!("{url}/-/ready");
            until(
                &format!("{what} is ready"),
                Duration::from_secs(60),
                Duration::from_millis(100),
                || async { http::get(&url).await.map(drop) },
            )
            .await?;
        }
        Ok(())
    }

    /// Replaces the alert and recording rules and makes Prometheus read them. The text is a Prometheus rule file.
    pub async fn set_rules(&self, yaml: &str) -> Result<()> {
        fs::write(self.dir.join("rules/rules.yaml"), yaml).context("rules")?;
        self.reload(ADDRESSES.prometheus).await
    }

    /// Adds a file of rules beside the others, or replaces the one of this name.
    pub async fn add_rules(&self, name: &str, yaml: &str) -> Result<()> {
        fs::write(self.dir.join(format!("rules/{name}.yaml")), yaml).context("rules")?;
        self.reload(ADDRESSES.prometheus).await
    }

    /// Replaces Alertmanager's configuration (receivers, inhibition) and makes it read it.
    pub async fn set_alertmanager(&self, yaml: &str) -> Result<()> {
        fs::write(self.dir.join("alertmanager.yaml"), yaml).context("Alertmanager configuration")?;
        self.reload(ADDRESSES.alertmanager).await
    }

    async fn reload(&self, url: &str) -> Result<()> {
        let limit = Duration::from_secs(10);
        let (status, body) = http::request(Method::POST, &format!("{url}/-/reload"), &[], "", limit).await?;
        if status != 200 {
            bail!("reload refused: {}", String::from_utf8_lossy(&body).trim());
        }
        Ok(())
    }

    /// An instant query; the `data.result` of the answer.
    pub async fn query(&self, promql: &str) -> Result<Vec<Value>> {
        let url = format!("{}/api/v1/query?query={}", ADDRESSES.prometheus, http::encode(promql));
        let mut answer: Value =
            serde_json::from_slice(&http::get(&url).await?).context("Prometheus' answer")?;
        match answer.pointer_mut("/data/result").map(Value::take) {
            Some(Value::Array(result)) => Ok(result),
            _ => bail!("{promql}: not a vector: {answer}"),
        }
    }

    /// The sum of an instant vector's values; None when it is empty.
    pub async fn sum(&self, promql: &str) -> Result<Option<f64>> {
        let result = self.query(promql).await?;
        let value =
            |v: &Value| v.pointer("/value/1").and_then(Value::as_str).and_then(|s| s.parse::<f64>().ok());
        Ok(if result.is_empty() { None } else { Some(result.iter().filter_map(value).sum()) })
    }

    /// The alerts that Alertmanager has now, as its v2 API lists them.
    pub async fn alerts(&self) -> Result<Vec<Value>> {
        let body = http::get(&format!("{}/api/v2/alerts", ADDRESSES.alertmanager)).await?;
        serde_json::from_slice(&body).context("Alertmanager's answer")
    }

    /// Sends alerts to Alertmanager directly: a list of `{labels, annotations, startsAt, endsAt}`.
    pub async fn send_alerts(&self, alerts: &Value) -> Result<()> {
        self.post("/api/v2/alerts", alerts).await.map(drop)
    }

    /// Silences alerts; returns the silence's id. Takes the body of Alertmanager's `POST /api/v2/silences`.
    pub async fn silence(&self, silence: &Value) -> Result<String> {
        let answer = self.post("/api/v2/silences", silence).await?;
        let id = answer.get("silenceID").and_then(Value::as_str).context("silenceID")?;
        Ok(id.to_owned())
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let url = format!("{}{path}", ADDRESSES.alertmanager);
        let json = [("content-type".to_owned(), "application/json".to_owned())];
        let limit = Duration::from_secs(5);
        let (status, answer) = http::request(Method::POST, &url, &json, &body.to_string(), limit).await?;
        if status != 200 {
            bail!("{url}: {status} {}", String::from_utf8_lossy(&answer).trim());
        }
        Ok(if answer.is_empty() { Value::Null } else { serde_json::from_slice(&answer).context("answer")? })
    }
}
