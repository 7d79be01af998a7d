"""Abusive networks: lists, look-up, action, exports, on real files and with the real consumers."""
