"""What code and tag say of the vehicle's looks, in the words an officer compares with the car, and how it was shown.

Codes of GA/T 16 (vehicle types, natures of use) and GA 24.8 (body colours) as the project's domain tables give them:
the usual ones, not all. A code that no table knows is shown as it is; the format restricts it to
letters and digits.
"""

from __future__ import annotations

from verifier.types import Credential, PresentationMode, TagEvidence
from verifier.wording import PRESENTATIONS, Text

VEHICLE_TYPES: dict[str, Text] = {
    "K11": Text("大型普通客车", "large bus"),
    "K21": Text("中型普通客车", "medium bus"),
    "K31": Text("小型普通客车", "small passenger"),
    "K32": Text("小型越野客车", "small off-road"),
    "K33": Text("小型轿车", "small car"),
    "K34": Text("小型专用客车", "small special"),
    "K38": Text("小型专用校车", "school minibus"),
    "K39": Text("小型面包车", "small van"),
    "K41": Text("微型普通客车", "mini passenger"),
    "K42": Text("微型越野客车", "mini off-road"),
    "K43": Text("微型轿车", "mini car"),
    "K49": Text("微型面包车", "mini van"),
    "H11": Text("重型普通货车", "heavy lorry"),
    "H31": Text("轻型普通货车", "light lorry"),
    "B11": Text("重型普通半挂车", "hvy semi-trailer"),
    "Q11": Text("重型半挂牵引车", "heavy tractor"),
    "M21": Text("普通二轮摩托车", "motorcycle"),
    "M22": Text("轻便二轮摩托车", "moped"),
}

COLOURS: dict[str, Text] = {
    "A": Text("白", "white"),
    "B": Text("灰", "grey"),
    "C": Text("黄", "yellow"),
    "D": Text("粉", "pink"),
    "E": Text("红", "red"),
    "F": Text("紫", "purple"),
    "G": Text("绿", "green"),
    "H": Text("蓝", "blue"),
    "I": Text("棕", "brown"),
    "J": Text("黑", "black"),
}

USE_NATURES: dict[str, Text] = {
    "A": Text("非营运", "non-commercial"),
    "B": Text("公路客运", "coach service"),
    "C": Text("公交客运", "city bus"),
    "D": Text("出租客运", "taxi"),
    "E": Text("旅游客运", "tour coach"),
    "F": Text("货运", "goods"),
    "G": Text("租赁", "rental"),
    "H": Text("警用", "police"),
    "I": Text("消防", "fire service"),
    "J": Text("救护", "ambulance"),
    "K": Text("工程救险", "emergency works"),
    "L": Text("营转非", "ex-commercial"),
    "M": Text("出租转非", "ex-taxi"),
    "N": Text("教练", "driver training"),
    "O": Text("幼儿校车", "nursery bus"),
    "P": Text("小学生校车", "primary sch. bus"),
    "Q": Text("初中生校车", "junior sch. bus"),
    "R": Text("危化品运输", "dangerous goods"),
    "S": Text("中小学生校车", "school bus"),
    "T": Text("预约出租客运", "ride-hailing"),
    "U": Text("预约出租转非", "ex-ride-hailing"),
}

TYPE_LABEL, COLOUR_LABEL, USE_LABEL = Text("车型", "TYPE"), Text("颜色", "BODY"), Text("用途", "USE")
MODE_LABEL, TAG_LABEL = Text("出示", "SHOWN"), Text("标识", "TAG")


def vehicle_words(
    credential: Credential | None, mode: PresentationMode | None, tag: TagEvidence | None = None
) -> tuple[tuple[Text, Text], ...]:
    """Label and words of each thing that is said of the car, type, colours, nature of use, and of how a code was shown.

    `credential` is the proven one. What a tag's proven certificate says is told where the credential does not say the
    same, and beside a credential it is told as the tag's.
    """
    rows = []
    of_code = (None, None) if credential is None else (credential.vehicle_type, credential.body_colour)
    of_tag = (None, None) if tag is None else (tag.vehicle_type, tag.body_colour)
    for (label, words), by_code, by_tag in zip(_LOOKS, of_code, of_tag, strict=True):
        if by_code is not None:
            rows.append((label, words(by_code)))
        if by_tag is not None and by_tag != by_code:
            rows.append((label if credential is None else TAG_LABEL, words(by_tag)))
    if credential is not None and credential.use_nature is not None:
        rows.append((USE_LABEL, _word(USE_NATURES, credential.use_nature)))
    if mode is not None:
        rows.append((MODE_LABEL, PRESENTATIONS[mode]))
    return tuple(rows)


def _type_words(code: str) -> Text:
    return _word(VEHICLE_TYPES, code)


def _colour_words(letters: str) -> Text:
    colours = [_word(COLOURS, letter) for letter in letters]
    return Text("/".join(c.zh for c in colours), "/".join(c.en for c in colours))


_LOOKS = (TYPE_LABEL, _type_words), (COLOUR_LABEL, _colour_words)


def _word(table: dict[str, Text], code: str) -> Text:
    return table.get(code, Text(code, code))
