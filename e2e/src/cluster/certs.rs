//! Keys and certificates of one cluster, made anew for each.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};

/// Where the files of [`write`] are.
#[derive(Clone, Debug)]
pub struct Certs {
    pub dir: PathBuf,
    pub ca_pem: String,
    pub admin_cert_pem: String,
    pub admin_key_pem: String,
}

impl Certs {
    /// The path of one file, such as `ca.crt`.
    pub fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

/// Writes ca.crt, apiserver.{crt,key}, admin.{crt,key}, sa.{key,pub} into the folder.
pub fn write(dir: &Path, service_ip: Ipv4Addr) -> Result<Certs> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let save = |name: &str, text: &str| fs::write(dir.join(name), text).with_context(|| name.to_owned());

    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.distinguished_name = name("sluice-local-ca", None);
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    save("ca.crt", &ca_pem)?;
    let issuer = Issuer::new(ca, ca_key);

    let issue = |common: &str, organization: Option<&str>| -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(
            ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
                .map(String::from)
                .to_vec(),
        )?;
        params.distinguished_name = name(common, organization);
        for ip in [Ipv4Addr::LOCALHOST, service_ip] {
            params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(ip)));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
    };
    let (server_cert, server_key) = issue("kube-apiserver", None)?;
    save("apiserver.crt", &server_cert)?;
    save("apiserver.key", &server_key)?;
    let (admin_cert_pem, admin_key_pem) = issue("admin", Some("system:masters"))?;
    save("admin.crt", &admin_cert_pem)?;
    save("admin.key", &admin_key_pem)?;
    let accounts = KeyPair::generate()?;
    save("sa.key", &accounts.serialize_pem())?;
    save("sa.pub", &accounts.public_key_pem())?;
    Ok(Certs { dir: dir.to_owned(), ca_pem, admin_cert_pem, admin_key_pem })
}

fn name(common: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common);
    name
}
