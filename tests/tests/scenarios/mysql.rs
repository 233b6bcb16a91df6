//! Scenario 7: a Service without selector, hand-written Endpoints, a real database outside the cluster.

use anyhow::Context;
use scenarios::{Cluster, TestResult, Transport, database, scenario, sql};

const EXAMPLE: &str = "07-mysql-endpoints";

#[test]
fn service_without_selector_reaches_an_outside_database() -> TestResult {
    let builder = Cluster::builder().host("database", "192.168.128.11").pod("visitor", "node-1", "10.244.1.9");
    scenario(builder, |cluster| {
        let _database = database(cluster.at("database")?, "database", cluster.directory())?;
        cluster.manifests.example(EXAMPLE)?;
        let whole = cluster.manifests.read(EXAMPLE)?;
        let (service, _) = whole.split_once("\n---\n").context("the example has two documents")?;
        cluster.manifests.write(EXAMPLE, &service)?;
        let _proxies = cluster.start_proxies(&[])?;
        for node in cluster.nodes() {
            node.namespace().await_vips(&["10.102.14.71"])?;
        }
        for from in ["visitor", "node-1", "node-2"] {
            cluster.at(from)?.expect_refused(Transport::Tcp, "10.102.14.71:3306")?;
        }
        cluster.manifests.write(EXAMPLE, &whole)?;
        for node in cluster.nodes() {
            node.namespace().await_service("TCP 10.102.14.71:3306", &["192.168.128.11:3306 1"])?;
        }
        let statement = "create database shop; create table shop.goods (name text); \
                         insert into shop.goods values ('tea'); select name from shop.goods";
        assert_eq!(sql(cluster.at("visitor")?, "10.102.14.71", 3306, statement)?, "tea");
        for from in ["node-1", "node-2", "visitor"] {
            assert_eq!(sql(cluster.at(from)?, "10.102.14.71", 3306, "select name from shop.goods")?, "tea");
        }
        Ok(())
    })
}
