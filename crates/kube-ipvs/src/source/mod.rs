//! Where events come from: a folder of manifests.
