# For who changes the secret (secretsource put, a rotation): read it, and write it by check-and-set.
path "kv/data/prod/pos" {
  capabilities = ["read", "create", "update"]
}
