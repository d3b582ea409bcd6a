"""What the parts of a device are called, and what the parts' pages and tests share; the console's start loads it."""

from __future__ import annotations

from verifier.wording import Text

LOW_BATTERY = 10  # percent: a banner, and a failed self-test

NAMES: dict[str, Text] = {  # in the order in which they are told
    "camera": Text("相机", "CAMERA"),
    "barcode": Text("扫码器", "ENGINE"),
    "reader": Text("读写器", "READER"),
    "panel": Text("显示屏", "PANEL"),
    "keys": Text("按键", "KEYS"),
    "sound": Text("声音", "SOUND"),
    "cache": Text("缓存", "CACHE"),
    "trust": Text("信任表", "TRUST"),
    "clock": Text("时钟", "CLOCK"),
    "network": Text("网络", "NETWORK"),
    "battery": Text("电池", "BATTERY"),
    "disk": Text("磁盘", "DISK"),
    "audit": Text("记录", "AUDIT"),
}
