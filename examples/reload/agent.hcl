# A Vault Agent (or OpenBao's) that writes a document for programs that have no way to Vault, and tells them.
#
# Needs: vault agent -config=agent.hcl (or bao agent), a role that may read kv/data/prod/pos, the folder /run/pos (0700)
#
# All three secrets are rendered, so that a program which reads the file goes through a rotation as one that reads Vault.
# What the agent renders follows some minutes later (static_secret_render_interval): give `secretsource rotate` that as
# --wait, and a minute more.
vault {
  address = "https://vault.example.com"
}

auto_auth {
  method {
    type = "approle"
    config = {
      role_id_file_path                   = "/etc/pos/role-id"
      secret_id_file_path                 = "/etc/pos/secret-id"
      remove_secret_id_file_after_reading = false
    }
  }
}

template_config {
  static_secret_render_interval = "1m"
}

template {
  destination = "/run/pos/oauth.json"
  perms       = "0600"
  contents    = "{{ with secret \"kv/data/prod/pos\" }}{{ .Data.data | toJSON }}{{ end }}"

  exec {
    command = ["pkill", "-HUP", "-f", "pos_told.py"]
  }
}
