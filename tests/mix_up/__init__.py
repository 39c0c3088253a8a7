"""Who may get which token: many identities in one process, and none that gets another's."""
