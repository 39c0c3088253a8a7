# For programs: read one document of the KV version 2 engine at kv/, and nothing else. No list, no "*".
path "kv/data/prod/pos" {
  capabilities = ["read"]
}
