"""Programs in any language as Sked's executors, schedulers and providers of secrets: docs/bridge.md is the protocol."""
