//! `version`: this program's, and the controller's if it can be found.

use serde_json::json;

use super::{API_VERSION, Context};
use crate::args::{Output, Version};
use crate::cluster::Cluster;
use crate::exit::Code;
use crate::fail::Failure;
use crate::model::Controller;
use crate::out::{Line, Role};

/// This program's version.
const CLIENT: &str = env!("CARGO_PKG_VERSION");

/// Runs `version`.
pub async fn run(context: &Context, args: Version) -> Result<Code, Failure> {
    let asked = if args.client {
        None
    } else {
        Some(match Cluster::connect(&context.global).await {
            Ok(cluster) => cluster.controllers().await,
            Err(failure) => Err(failure),
        })
    };
    let found: &[Controller] =
        asked.as_ref().and_then(|asked| asked.as_ref().ok()).map_or(&[], Vec::as_slice);
    let format = context.machine().filter(|format| *format != Output::Name);
    if let Some(format) = format {
        let version = json!({
            "apiVersion": API_VERSION,
            "kind": "Version",
            "client": { "version": CLIENT, "os": std::env::consts::OS, "arch": std::env::consts::ARCH },
            "controllers": found,
        });
        context.document(format, "", &version, false)?;
    } else {
        let missing = match &asked {
            Some(Err(failure)) if failure.forbidden => "-  (you may not list deployments in all namespaces)",
            Some(Ok(_)) => "not found",
            _ => "",
        };
        context.print(&lines(found, missing))?;
    }
    match asked {
        // What may not be read is left out; a cluster that does not answer is an error.
        Some(Err(failure)) if !failure.forbidden => Err(failure),
        _ => Ok(Code::Fine),
    }
}

/// The versions; `missing` says what stands for a controller that was not found.
fn lines(found: &[Controller], missing: &str) -> Vec<Line> {
    let mut lines = vec![Line::new(format!("Client:      {CLIENT}"))];
    for controller in found {
        let ready = format!("{}/{} ready", controller.ready, controller.wanted);
        let role = if controller.ready > 0 { Role::Ok } else { Role::Bad };
        let version = if controller.version.is_empty() { "-" } else { &controller.version };
        lines.push(
            Line::new(format!(
                "Controller:  {version}  {}  {}/{}  ",
                controller.image, controller.namespace, controller.name
            ))
            .add(role, ready),
        );
    }
    if !missing.is_empty() && found.is_empty() {
        lines.push(Line::new("Controller:  ").add(Role::Attention, missing));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_stand_under_each_other() {
        let controller = Controller {
            namespace: "sluice-system".to_owned(),
            name: "sluice".to_owned(),
            version: "0.1.0".to_owned(),
            image: "sluice:0.1.0".to_owned(),
            ready: 2,
            wanted: 2,
        };
        let text: Vec<String> =
            lines(&[controller], "not found").iter().map(|line| line.paint(false)).collect();
        assert_eq!(text[1], "Controller:  0.1.0  sluice:0.1.0  sluice-system/sluice  2/2 ready");
        let none: Vec<String> = lines(&[], "not found").iter().map(|line| line.paint(false)).collect();
        assert_eq!(none[1], "Controller:  not found");
        assert_eq!(lines(&[], "").len(), 1);
    }
}
