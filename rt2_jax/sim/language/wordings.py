"""How each kind of visual question is asked in each language (used by `questions`).

Slots: {x} and {y} are `lexicon.Phrase`; the others are words that the question's function inflects.
"""

YES: dict[str, tuple[str, str]] = {"en": ("yes", "no"), "de": ("ja", "nein"), "fr": ("oui", "non"), "es": ("sí", "no")}
PLUS: dict[str, str] = {"en": "plus", "de": "plus", "fr": "plus", "es": "más"}
MINUS: dict[str, str] = {"en": "minus", "de": "minus", "fr": "moins", "es": "menos"}

# kind -> language -> wordings.
WORDINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "where": {
        "en": ("where is {x.the}?", "where can I see {x.the}?"),
        "de": ("Wo ist {x.the}?",),
        "fr": ("Où est {x.the} ?",),
        "es": ("¿Dónde está {x.the}?",),
    },
    "point": {
        "en": ("where exactly is {x.the}?", "at which point is {x.the}?"),
        "de": ("Wo genau ist {x.the}?",),
        "fr": ("Où exactement est {x.the} ?",),
        "es": ("¿Dónde exactamente está {x.the}?",),
    },
    "what_at": {
        "en": ("what is at {place}?", "which thing is at {place}?"),
        "de": ("Was ist bei {place}?",),
        "fr": ("Qu'y a-t-il à {place} ?",),
        "es": ("¿Qué hay en {place}?",),
    },
    "count": {
        "en": ("how many objects are on the table?", "how many objects are there?"),
        "de": ("Wie viele Gegenstände liegen auf dem Tisch?",),
        "fr": ("Combien d'objets y a-t-il sur la table ?",),
        "es": ("¿Cuántos objetos hay en la mesa?",),
    },
    "count_color": {
        "en": ("how many {word} objects are there?", "how many objects are {word}?"),
        "de": ("Wie viele {word} Gegenstände gibt es?",),
        "fr": ("Combien d'objets {word} y a-t-il ?",),
        "es": ("¿Cuántos objetos {word} hay?",),
    },
    "count_shape": {
        "en": ("how many {word} are there?", "how many {word} are on the table?"),
        "de": ("Wie viele {word} gibt es?",),
        "fr": ("Combien {of}{word} y a-t-il ?",),
        "es": ("¿Cuánt{gender}s {word} hay?",),
    },
    "color": {
        "en": ("what colour is the {word}?", "which colour does the {word} have?"),
        "de": ("Welche Farbe hat {the} {word}?",),
        "fr": ("De quelle couleur est {the}{word} ?",),
        "es": ("¿De qué color es {the} {word}?",),
    },
    "shape": {
        "en": ("what is the {word} object?", "what shape is the {word} object?"),
        "de": ("Welche Form hat der {word} Gegenstand?",),
        "fr": ("Quelle forme a l'objet {word} ?",),
        "es": ("¿Qué forma tiene el objeto {word}?",),
    },
    "smallest": {
        "en": ("which object is the smallest?", "what is the smallest object?"),
        "de": ("Welcher Gegenstand ist am kleinsten?",),
        "fr": ("Quel objet est le plus petit ?",),
        "es": ("¿Qué objeto es el más pequeño?",),
    },
    "largest": {
        "en": ("which object is the largest?", "what is the largest object?"),
        "de": ("Welcher Gegenstand ist am größten?",),
        "fr": ("Quel objet est le plus grand ?",),
        "es": ("¿Qué objeto es el más grande?",),
    },
    "digit": {
        "en": ("what number is on the table?", "which number can you read?"),
        "de": ("Welche Zahl ist auf dem Tisch?",),
        "fr": ("Quel chiffre est sur la table ?",),
        "es": ("¿Qué número hay en la mesa?",),
    },
    "letter": {
        "en": ("what letter is on the table?", "which letter can you read?"),
        "de": ("Welcher Buchstabe ist auf dem Tisch?",),
        "fr": ("Quelle lettre est sur la table ?",),
        "es": ("¿Qué letra hay en la mesa?",),
    },
    "portrait": {
        "en": ("who is in the picture?", "whose portrait is this?"),
        "de": ("Wer ist auf dem Bild?",),
        "fr": ("Qui est sur l'image ?",),
        "es": ("¿Quién está en la imagen?",),
    },
    "nearest": {
        "en": ("which object is nearest to {x.the}?", "what is the object next to {x.the}?"),
        "de": ("Welcher Gegenstand ist {x.the_dat} am nächsten?",),
        "fr": ("Quel objet est le plus proche {x.of} ?",),
        "es": ("¿Qué objeto está más cerca {x.of}?",),
    },
    "left": {
        "en": ("is {x.the} left {y.of}?", "is {x.the} to the left {y.of}?"),
        "de": ("Ist {x.the} links {y.of}?",),
        "fr": ("Est-ce que {x.the} est à gauche {y.of} ?",),
        "es": ("¿Está {x.the} a la izquierda {y.of}?",),
    },
    "right": {
        "en": ("is {x.the} right {y.of}?", "is {x.the} to the right {y.of}?"),
        "de": ("Ist {x.the} rechts {y.of}?",),
        "fr": ("Est-ce que {x.the} est à droite {y.of} ?",),
        "es": ("¿Está {x.the} a la derecha {y.of}?",),
    },
    "on": {
        "en": ("which object is on {x.the}?", "what lies on {x.the}?"),
        "de": ("Welcher Gegenstand liegt auf {x.the_dat}?",),
        "fr": ("Quel objet est sur {x.the} ?",),
        "es": ("¿Qué objeto está sobre {x.the}?",),
    },
    "same_color": {
        "en": ("which object has the same colour as {x.the}?", "what has the same colour as {x.the}?"),
        "de": ("Welcher Gegenstand hat dieselbe Farbe wie {x.the}?",),
        "fr": ("Quel objet a la même couleur que {x.the} ?",),
        "es": ("¿Qué objeto tiene el mismo color que {x.the}?",),
    },
    "sum": {
        "en": ("what is {sum}?", "how much is {sum}?"),
        "de": ("Wie viel ist {sum}?",),
        "fr": ("Combien font {sum} ?",),
        "es": ("¿Cuánto es {sum}?",),
    },
    "exists": {
        "en": ("is there {x.a}?", "can you see {x.a}?"),
        "de": ("Gibt es {x.a_acc}?",),
        "fr": ("Y a-t-il {x.a} ?",),
        "es": ("¿Se ve {x.a}?",),
    },
    "gripper_open": {
        "en": ("is the gripper open?", "is the robot gripper open?"),
        "de": ("Ist der Greifer offen?",),
        "fr": ("La pince est-elle ouverte ?",),
        "es": ("¿Está abierta la pinza?",),
    },
    "table": {
        "en": ("what are the objects on?", "what is the table like?"),
        "de": ("Worauf liegen die Gegenstände?",),
        "fr": ("Sur quoi sont les objets ?",),
        "es": ("¿Sobre qué están los objetos?",),
    },
}

# What a robot can be told in other languages: language -> skill -> wordings; {direction} is one of DIRECTIONS.
# English is in `skills`, which the robot data is worded by; these are for web data and the reasoning evaluation.
INSTRUCTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "de": {
        "reach": ("erreiche {x.the_acc}", "fahre zu {x.the_dat}"),
        "pick": ("nimm {x.the_acc}", "hebe {x.the_acc} auf"),
        "move_near": ("bewege {x.the_acc} neben {y.the_acc}",),
        "push": ("schiebe {x.the_acc} {direction}",),
        "place": ("lege {x.the_acc} auf {y.the_acc}",),
    },
    "fr": {
        "reach": ("atteins {x.the}", "va vers {x.the}"),
        "pick": ("prends {x.the}", "soulève {x.the}"),
        "move_near": ("mets {x.the} près {y.of}",),
        "push": ("pousse {x.the} {direction}",),
        "place": ("pose {x.the} sur {y.the}",),
    },
    "es": {
        "reach": ("alcanza {x.the}", "ve hacia {x.the}"),
        "pick": ("coge {x.the}", "levanta {x.the}"),
        "move_near": ("mueve {x.the} cerca {y.of}",),
        "push": ("empuja {x.the} {direction}",),
        "place": ("pon {x.the} sobre {y.the}",),
    },
}
DIRECTIONS: dict[str, dict[str, str]] = {
    "de": {"left": "nach links", "right": "nach rechts", "away": "nach hinten", "closer": "nach vorne"},
    "fr": {"left": "vers la gauche", "right": "vers la droite", "away": "vers le fond", "closer": "vers l'avant"},
    "es": {
        "left": "hacia la izquierda",
        "right": "hacia la derecha",
        "away": "hacia el fondo",
        "closer": "hacia delante",
    },
}
