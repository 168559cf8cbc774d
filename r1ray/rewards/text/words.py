"""Function words of languages in the Latin script, and letters that few languages use."""

from __future__ import annotations

_LISTS = {
    "en": """the of and to in is that it for was on are with as be this have from or by not but what all were when we there
        can an your which their if will each about how up out them then she many some so these would other into has more
        two like him could no make than been its who now did get may you he they his her my me us do does because let
        first next also wait check therefore since thus hence only where after before should must such between""",
    "de": """der die das und ist nicht ein eine zu den mit von für auf dem im sich des werden wird auch als es an aus bei
        nach wie wir ich sie er haben hat sind war oder aber wenn dann also so noch nur kann können muss müssen daher somit
        zuerst jetzt über durch um einen einer einem eines dass ergibt zum zur vom beim ihr uns man mal dies diese dieser
        alle mehr schon hier denn weil bis ob""",
    "fr": """le la les de des et est un une du en que qui dans pour pas sur au avec ce il elle nous vous je on sont par plus
        ne se ou mais donc alors si cette ces son sa ses leur aux être avoir fait peut comme tout ainsi puis car où deux
        doit soit même entre sans chaque après avant abord calculons maintenant""",
    "es": """el la los las de y es un una en que por con para no se del al lo como más pero sus le ya este esta sí porque
        entonces si son ser está hay cada muy también nos su hasta desde primero ahora luego así debemos tenemos cuando
        donde sin sobre entre todo dos o tiene puede hemos""",
    "it": """il lo la gli le di e è un una in che per con non si del della dei delle da al sono come più ma anche quindi se
        questo questa allora poi prima abbiamo dobbiamo nel alla nella ogni perché può ora due hanno dal""",
    "pt": """o a os as de e é um uma em que por com para não se do da dos das no na como mais mas também então este esta são
        ser está há cada muito nos seu primeiro agora logo assim temos devemos ao pela pelo quando onde sem dois ou tem""",
    "nl": """de het een en van is in op te dat die niet met voor zijn aan er om ook als maar dan we ik je hij ze door naar
        dus eerst nu kan moet wordt uit bij deze dit heeft hebben worden wij twee elke omdat""",
    "sv": """och att det som är på av för med den till inte om ett men har vi jag kan så sedan först nu eller från vara blir måste
        därför alltså när också varje efter mellan två dem vad svaret""",
    "pl": """w z na nie się że jest jak ale po od za przez dla oraz lub więc jeśli gdy tylko może czy są być było teraz najpierw
        następnie potem każdy dwa który która które mamy musimy ten ta tego czyli także już ich""",
    "tr": """ve bir bu için ile olarak olan çok daha en gibi kadar sonra ama ancak veya ya ki şimdi önce eğer iki her ise değil
        var yok olur bunu biz ben onu böylece yani""",
    "id": """yang dan di dari untuk dengan pada adalah ini itu tidak akan kita dalam ke oleh jadi maka karena juga sudah atau
        dapat bisa lalu kemudian pertama sekarang setiap dua jika lebih saya kami harus kedua""",
    "vi": """và của là có cho không được trong với một các những này đó thì ta chúng để khi nếu vì nên từ đến cũng như ra vào
        hai đầu tiên tiếp theo bây giờ mỗi số""",
}

LATIN = frozenset(_LISTS)
"""Codes of the languages with a list of function words."""

LISTED_IN: dict[str, frozenset[str]] = {
    word: frozenset(code for code, words in _LISTS.items() if word in words.split())
    for word in " ".join(_LISTS.values()).split()
}
"""Function word, in lower case -> its languages."""

OTHER = "und"
"""Code of words in an unknown language."""

LETTERS = {
    "de": "äöüß", "fr": "çèêœàù", "es": "ñ¿¡", "pt": "ãõ", "it": "ìò", "sv": "åäö", "pl": "ąęłńśźżć", "tr": "ğışçöü",
    "vi": "ăđơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ", OTHER: "ěřůčšžőűșțţėįųņļķģ",
}  # fmt: skip
"""Code -> letters that are evidence for the language."""

NEIGHBOURS = {"ru": ("іїєґўјљњћђ", "ыъэё"), "ar": ("پچگژکیٹڈےہ", "ةيكىأإ")}
"""Script -> letters of other languages in it (Ukrainian, Persian), and letters that those lack, in lower case."""
