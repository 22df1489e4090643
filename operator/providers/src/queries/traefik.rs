//! Traefik's counters per Service of the Gateway API provider, summed per Traefik instance, because a restart of one
//! instance would otherwise look like a reset of all.

use sluice_core::evidence::{Arm, PodCounters, Trouble};

use super::parts::{Parts, Points, combined};
use super::promql::{quote, regex_escape};
use crate::prometheus::Series;

/// Traefik's counters, by Service of a route.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TraefikQuery {
    /// Namespace of routes and Services.
    pub namespace: String,
    /// Names of the HTTPRoutes.
    pub routes: Vec<String>,
    /// Whether both Services lead to the canary: so it is from its promotion on.
    pub promoted: bool,
    /// Service of the stable revision, `X-stable`.
    pub stable_service: String,
    /// Service of the canary, `X-canary`.
    pub canary_service: String,
}

impl TraefikQuery {
    pub(super) fn promql(&self) -> Result<String, Trouble> {
        let routes =
            self.routes.iter().map(|route| regex_escape(&normalized(route))).collect::<Vec<_>>().join("|");
        let services = regex_escape(&self.stable_service) + "|" + &regex_escape(&self.canary_service);
        let namespace = regex_escape(&normalized(&self.namespace));
        // httproute-<namespace>-<route>-gw-<gateway>-ep-<entry point>-<rule>-<hash>-svc-<namespace>-<service>-<index>
        let name = format!(
            "httproute-{namespace}-({routes})-gw-.+-svc-{}-({services})-[0-9]+@kubernetesgateway",
            regex_escape(&self.namespace)
        );
        let selector = format!("traefik_service_requests_total{{service=~{}}}", quote(&name));
        Ok(combined(&selector, "instance, service", "code", "job"))
    }

    pub(super) fn counters(&self, series: &[Series]) -> Result<Vec<PodCounters>, Trouble> {
        let arm = |service: &str| {
            let (route, _) = service.rsplit_once('@')?.0.rsplit_once('-')?;
            let ends = |name: &str| route.ends_with(&format!("-svc-{}-{name}", self.namespace));
            // `a-stable` must not take what belongs to `x-svc-ns-a-stable`: the longer name is asked first.
            let stable = if self.promoted { Arm::Canary } else { Arm::Stable };
            let mut arms = [(&self.stable_service, stable), (&self.canary_service, Arm::Canary)];
            arms.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
            arms.into_iter().find(|(name, _)| ends(name)).map(|(_, arm)| arm)
        };
        let parts = Parts::split(series, |s| {
            let (instance, service) = (s.label("instance"), s.label("service"));
            // Service names are long, and the id is kept in status: a short hash tells them apart.
            Some((format!("{instance}/{:08x}", fnv1a(service)), arm(service)?))
        })?;
        let mut points = Points::default();
        let metric = "traefik_service_requests_total";
        for (key, series) in &parts.counts {
            let newest = parts.newest_of(key, |targets| {
                format!(
                    "Traefik {} is scraped {} times, by the jobs {}: keep one of them",
                    series.label("instance"),
                    targets.len(),
                    targets.iter().map(|(job, _)| job.as_str()).collect::<Vec<_>>().join(", ")
                )
            })?;
            points.add(key, series.label("code"), series.value, newest, metric)?;
        }
        points.counters()
    }
}

/// The form of a route's name in Traefik's names: other characters than letters and digits separate.
fn normalized(name: &str) -> String {
    name.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

/// FNV-1a: the same in every version of this program, as an id in status has to be.
pub(super) fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
