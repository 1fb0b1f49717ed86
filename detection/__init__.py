"""Anchors, box codes, matching, losses, decoding, AP: functions of arrays, one file each."""
