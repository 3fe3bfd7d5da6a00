"""What travels on links between agents and control: one closed union per direction.

Owns the schema of frame kind 1 (ARCHITECTURE.md, "Link frames"). A message never says who its sender is: that is the proved
leaf. Unknown fields and unknown types are refused, so a typo cannot switch a check off; version skew is handled by `Hello.version`.
"""
