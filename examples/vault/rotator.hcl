# For who changes the secret (secretsource put, secretsource rotate): read it, and write it by check-and-set; see how many
# versions are kept, and destroy those that held a secret which is out of use.
path "kv/data/prod/pos" {
  capabilities = ["read", "create", "update"]
}

path "kv/metadata/prod/pos" {
  capabilities = ["read"]
}

path "kv/destroy/prod/pos" {
  capabilities = ["update"]
}
