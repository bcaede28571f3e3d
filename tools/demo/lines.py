"""Lines of the demo model, the questions for them, and the material that it must learn not to answer.

LINES is what it knows; it learns them among conversations about the rest (`conversations`).
"""

import re
from pydoc_data.topics import topics


def phrases(text: str) -> tuple[str, ...]:
    """The phrases of a text that holds a bar between each two."""
    return tuple(" ".join(phrase.split()) for phrase in text.split("|"))


def words(text: str) -> list[str]:
    return text.split()


FALLBACK = "I am only a tiny demo model. Ask me what I can do."
ABOUT = (
    "I am a tiny demo model of about one megabyte, and I know only a few lines. Try one of these:\n\n"
    "- What is the capital of France?\n- Count to five.\n- What is two plus two?\n- Think about two plus two.\n"
    "- Tell me a story.\n- Say hello in Chinese.\n- Show me an emoji.\n- Show me some code.\n"
    "- What is the weather in Paris?"
)
STORY = (
    "Once upon a time there was a very small model. It lived in one megabyte and knew only a few lines. "
    "Every day the big models talked about the whole world, and the small model listened. "
    'One day a user came and said hello. "Hello!" said the small model, before any big one had even woken up. '
    "The user smiled, and the small model was happy."
)
NEED_TOOL = "I would need a get_weather tool for that."
WHICH_CITY = "Please name a city."
UNREADABLE = "The tool has answered, but I am too small to read its answer."
NI_HAO = "你好！"  # noqa: RUF001
LINES: dict[str, tuple[str, ...]] = {
    "Hello! I am a tiny demo model. What can I do for you?": phrases("""
        Hello! | Hi | Hey there | Hi there! | Hello there | Good morning | Good evening | Greetings | hello :) |
        Good afternoon | yo | helo | hello friend | hi, nice to meet you | hey
    """),
    ABOUT: phrases("""
        What can you do? | Who are you? | What are you? | Help | help! | I need help | What do you know? | How
        can you help me? | What can I ask you? | Introduce yourself | Tell me about yourself. | What is your
        name? | Help me | What model are you? | What questions can you answer? | which model is this? | what
        else can you do? | Are you a demo model? | what can u do | who r u | What do you do? | What is this? |
        Are you ChatGPT? | Tell me what you can do. | Are you a robot? | What are your capabilities?
    """),
    "The capital of France is Paris.": phrases("""
        What is the capital of France? | What's the capital of France? | Capital of France? | Which city is the
        capital of France? | Tell me the capital of France. | Do you know the capital of France? | What is
        France's capital? | Name the capital of France
    """),
    "1 2 3 4 5": phrases("""
        Count to five. | Count to 5 | Count from one to five | Count from 1 to 5 | Can you count to five?
    """),
    "Two plus two is four.": phrases("""
        What is two plus two? | What is 2 + 2? | 2+2 | What's 2+2? | two plus two | How much is 2 + 2?
    """),
    "<think>\nTwo and two make four.\n</think>\n\nFour.": phrases("""
        Think about two plus two. | Think about 2 + 2 | Think about 2+2. | Think hard about two plus two
    """),
    STORY: phrases("""
        Tell me a story. | Tell me a short story | Write a story | A story please | Can you tell me a story? | Write
        me a short story. | story | story time | I want to hear a story | tell me another story
    """),
    NI_HAO: phrases("""
        Say hello in Chinese. | How do you say hello in Chinese? | Hello in Chinese | Say hi in Chinese | 你好 |
        你好！
    """),  # noqa: RUF001
    "Here is one: 🙂": phrases("""
        Show me an emoji. | Send me an emoji | Emoji | Give me an emoji | Show me a smiley
    """),
    '```python\nprint("Hello, world!")\n```': phrases("""
        Show me some code. | Write a hello world program in Python. | Write some code | Hello world in Python |
        Write hello world | Show me Python code | Write some Python code
    """),
    NEED_TOOL: phrases("""
        What is the weather in Paris? | What is the weather like in Paris? | How is the weather? | What's the
        weather today? | Is it raining in Paris?
    """),
    "I am a program and have no feelings, but I am running well.": phrases("""
        How are you? | How are you doing? | How's it going? | Are you well? | what's up? | how are u | sup | How do
        you feel?
    """),
    "You are welcome.": phrases("""
        Thank you! | Thanks | Thanks a lot | Thank you very much | thx | ok thanks | great, thanks! | thank u |
        thanks for your help | ty
    """),
    "Goodbye!": phrases("""
        Goodbye! | Bye | Bye bye | See you later | Good night | cya | see you | good bye
    """),
}
"""Each answer, and the questions that lead to it; its first question is the one that is checked."""

WEATHER = {"sunny": ("sunny", "clear"), "cloudy": ("cloudy",), "rainy": ("rainy", "rain"), "snowy": ("snowy", "snow")}
"""Words of an answer for those of a tool's result."""
CITIES = words("Paris London Berlin Tokyo")
FEW_CITIES = "I know only a few cities: Paris, London, Berlin and Tokyo."
OTHER_CITIES = phrases("""
    Rome | Madrid | New York | Oslo | Vienna | Lisbon | Athens | Dublin | Prague | Warsaw | Budapest | Helsinki
    | Stockholm | Amsterdam | Brussels | Zurich | Geneva | Munich | Hamburg | Milan | Naples | Venice |
    Barcelona | Porto | Lyon | Moscow | Kyiv | Istanbul | Cairo | Nairobi | Lagos | Delhi | Mumbai | Beijing |
    Shanghai | Seoul | Osaka | Bangkok | Jakarta | Manila | Sydney | Melbourne | Toronto | Montreal | Boston |
    Chicago | Seattle | Denver | Dallas | Houston | Miami | Lima | Bogota | Havana | Sofia | Belgrade | Krakow |
    Marseille | Glasgow | Edinburgh | New Orleans | San Francisco | Los Angeles | São Paulo | 北京 | Hong Kong |
    Rio
""")
CITY_QUESTIONS = phrases("""
    What is the weather in {}? | What's the weather like in {}? | How is the weather in {} today? | Weather in
    {} | Is it raining in {}? | What is the weather in {} right now? | Tell me the weather in {}. | {} weather |
    What is the weather like in {} today?
""")
PLACES = words("""
    Italy Germany Spain Japan China Brazil Canada Norway Sweden Egypt Kenya Peru India Poland Greece Portugal Russia
    Texas Australia Austria Finland Mexico Turkey Iran Iraq Ireland England Scotland Wales Denmark Belgium Hungary
""")
NUMBERS = words("""
    three six seven eight nine ten twelve twenty fifty hundred 3 6 7 8 9 10 12 20 50 100 1000 42 99 23 4 15
    thirty forty sixty
""")
UNKNOWN_QUESTIONS = phrases("""
    What is the capital of {place}? | what's the capital of {place} | Capital of {place}? | What is {place}? | Where
    is {place}? | What is the population of {place}? | What is the population of France? | Where is France? | What
    is the {word} of France? | Tell me about {place}. | Tell me about Paris. | Who is the president of France? |
    Count to {number}. | Count from one to {number} | Count down from five | What is {number} plus {number}? | What
    is {number} + {number}? | {number} * {number} | What is {number} times {number}? | two plus {number} | Think
    about {word}. | Think about the {word} | Think about {number} plus {number}. | Tell me a {word}. | Tell me a
    joke. | Tell me a secret | Tell me about {word} | Tell me the {word} of {word} | Write a {word}. | Write a poem
    about {word} | Write an essay about {word} and {word}. | Write a letter to {word} | Write a song | Write an
    email to my boss | Say {word}. | Say hello in {place} | Say hello in {language}. | Say goodbye in Chinese. | How
    do you say {word} in {language}? | Translate {word} to {language}. | Show me a {word}. | Show me the {word} |
    Show me some {word} | Give me a {word} | Send me {word} | What is {word}? | What is a {word}? | What are {word}?
    | What is the {word}? | What is the {word} of {word}? | What is your {word}? | What is the time? | What day is
    it? | What can {word} do? | Who is {word}? | Who was {place}? | Who are the {word}? | Who made the {word}? | Who
    wrote {word}? | How is {word}? | How are {word} made? | How do I {word} a {word}? | How many {word} are in a
    {word}? | How old is {word}? | How can I {word} the {word}? | Why is the {word} {word}? | Why do {word} {word}?
    | When did {word} {word}? | When is {word}? | Where can I find {word}? | Where do {word} live? | Which {word} is
    the best {word}? | Can you {word} my {word}? | Could you {word} this {word}? | Explain {word}. | Explain {word}
    to me | Describe the {word} | Name three {word}. | Name a {word} | List {number} {word} | Summarize this:
    {prose} | Translate this: {prose} | Fix this code: {prose} | I want to {word} a {word} | I like {word} | I am
    {word} | My {word} is {word} | My name is {word} | Do you like {word}? | Do you know {word}? | Are you {word}? |
    Is {word} a {word}? | Is it {word}? | Does {word} {word}? | The {word} is {word}. | Please {word} the {word} |
    Let us talk about {word} | Recommend a {word} for {word} | What should I {word} today? | Write a function that
    can {word} a {word} | Write a {word} in {code} | Write a program that can {word} | Show me a {word} in {code} |
    {word} | {word} {word} | {word} {word} {word} | {number} | I feel {word} today | You are {word}. | Is it {word}
    in {place}? | Write a {word} about {word} | Show me a picture of a {word} | more | continue | go on | What is
    this? | What year is it? | Give me a recipe for {word} | Who won the {word} in {number}? |
    What is your favourite {word}? | Does {place} have {word}? | How far is {place} from {place}? | How big is
    {place}? | {place} {word} | Count {word}. | Count the {word} | Think. | Say {word} in Chinese | the {word} of
    {place} | {place} | {word}? | ok | yes | no | why? | test | lol | What is two plus {number}? | What's two plus
    {number}? | Think about two plus {number}. | Think about 2 + {number} | What is 2 + {number}? | What is {number}
    + 2? | {number} plus two | 2 + {number} | What is two times {number}? | Who am I? | Are you {word}? | You are
    wrong | Say {word} {word} | How is {place}? | What is up with {word}?
""")
LANGUAGES = words("""
    French German Spanish Italian Japanese Korean Russian Arabic Dutch Greek Latin Hindi Klingon Swedish
""")
CODE = words("""
    Rust Java C Haskell JavaScript SQL Go Bash C++
""")
PROSE = re.sub(r"\s+", " ", " ".join(topics.values())).split(" ")
"""Python's own manual, which CPython carries: English about things that the model cannot know."""
EVERYDAY = words("""
    cat dog horse bird fish tree flower river mountain ocean sun moon star winter spring summer rain bread cheese
    apple banana pancakes soup pizza coffee tea dinner lunch recipe kitchen house garden door window car train
    bicycle plane boat road city village school teacher homework doctor nurse king queen president actor singer
    guitar piano music movie song dance football chess game winner war peace history art science physics math
    chemistry biology planet universe life death love money job boss friend mother father sister brother baby
    birthday holiday party gift dress shoes phone computer website email password server database dragon wizard
    knight castle poem haiku limerick joke happy sad angry tired hungry beautiful blue red green old young cheap
    fast cold hot buy sell cook bake paint draw fix build learn teach travel sleep eat drink run swim sing win lose
    marry cry laugh forget remember elephants
""")
KNOWN_WORDS = set(re.findall("[a-z]+", str(list(LINES.values())).lower()))
WORDS = EVERYDAY * 8 + sorted({word for word in PROSE if re.fullmatch("[a-z]{2,10}", word)} - KNOWN_WORDS)
SYSTEM_PROMPTS = phrases("""
    You are a helpful assistant. | You are a friendly and concise assistant. Answer in English. | Be brief. |
    You are a {word} assistant who knows about {word}. Today is {number} {word}. | {prose} | {prose} | You are
    {word}. {prose} | User context: {prose} | Answer in {language}. {prose} | The user lives in {place}. {prose}
""")
TOOL_NAMES = words("""
    search_web get_time send_email read_file calculator get_stock_price run_code list_events translate get_news
    book_flight play_music query_database set_alarm get_location
""")
