//! Topics and a database of a test's own on the shared parts.

use std::path::{Path, PathBuf};

use devstack::Stack;
use harness::deployment::{Deployment, DeploymentConfig, make_folder};
use sqlx::PgPool;
use tokio::runtime::Runtime;
use uuid::Uuid;

/// What the tests of commands begin with; no role runs yet.
pub struct Own {
    pub runtime: Runtime,
    pub stack: Stack,
    pub deployment: Deployment,
    pub prefix: String,
    pub pool: PgPool,
}

impl Own {
    /// Topics and a database under a new name that begins with this one.
    pub fn prepare(name: &str) -> Self {
        Self::prepare_with(name, &[])
    }

    /// The same with settings of the roles, by their variables.
    pub fn prepare_with(name: &str, more: &[(&str, &str)]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.local");
        let stack = Stack::start(&root, &|line| eprintln!("{line}")).unwrap();
        let unique = format!("{name}_{}", Uuid::now_v7().simple());
        let (pool, url) = runtime.block_on(async {
            let server = PgPool::connect(stack.database_url()).await.unwrap();
            let create = sqlx::AssertSqlSafe(format!("create database {unique}"));
            sqlx::query(create).execute(&server).await.unwrap();
            let mut url = url::Url::parse(stack.database_url()).unwrap();
            url.set_path(&unique);
            (PgPool::connect(url.as_str()).await.unwrap(), url.to_string())
        });
        let prefix = format!("{unique}.");
        let more = more.iter().map(|&(key, value)| (key.to_owned(), value.to_owned()));
        let mut settings = vec![
            ("DATABASE_URL".to_owned(), url),
            ("MILESTREAM_KAFKA__TOPIC_PREFIX".to_owned(), prefix.clone()),
        ];
        settings.extend(more);
        let folder = make_folder(&stack.folder().join(&unique)).unwrap();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_milestream"));
        let config = DeploymentConfig { program, logs: stack.logs().join(&unique), folder, settings };
        let deployment = Deployment::prepare(&stack, config).unwrap();
        Self { runtime, stack, deployment, prefix, pool }
    }
}
