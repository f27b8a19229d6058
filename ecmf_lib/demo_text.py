"""Sentence bank of the demo corpus, written for it in English and Chinese.

``PLAIN`` says what is felt. ``MISLEADING`` and ``SARCASTIC`` use the words of one emotion and mean another.
``UNINFORMATIVE`` would fit any. All but the plain ones are meant to be spoken with several emotions, and a plain one
now and then is, so that a sentence does not give its label away.
"""

from __future__ import annotations

import numpy as np

LANGUAGES = ("en", "zh")

# fmt: off
PLAIN: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "neutral": (
            "The meeting starts at nine on Tuesday.", "The form is on the second page.",
            "The bus stops by the library on Tuesday.", "We keep the spare paper on the shelf.",
            "The report has twelve pages and a table.", "The office is open until six on Friday.",
            "The second page lists the opening times.", "The train stops at the station by the office.",
            "He put the report on the table at nine.", "The shop by the station is open on Friday.",
            "The list of names is on the first page.", "The meeting room is on the second floor.",
        ),
        "angry": (
            "I am so angry that you lied to me!", "Stop it, I am sick of your excuses!",
            "How dare you talk to me like that!", "I hate it when you never listen!",
            "That is enough, get out of my way!", "You lied again and I am furious!",
            "I am sick of it, stop lying to me!", "How dare you, that is my money!",
            "I hate your excuses, shut the door!", "You never listen, it makes me furious!",
            "Enough, I am angry and you know why!", "Get out, how dare you blame me!",
        ),
        "happy": (
            "I am so happy, we won the match!", "What a lovely day, I love this place!",
            "We passed, let us celebrate tonight!", "This is wonderful, thank you so much!",
            "I love it, best birthday present ever!", "Great news, the baby is here and lovely!",
            "I am so glad you came, it is wonderful!", "Yes, we won, I am happy for you!",
            "Let us celebrate, I got the great job!", "Thank you, this makes me so happy!",
            "What great fun, I love dancing with you!", "So glad, it is the best day of my life!",
        ),
        "sad": (
            "I miss her so much since she died.", "I feel so lonely, nobody calls anymore.",
            "He left me and I cannot stop crying.", "We lost everything, it is over now.",
            "I miss home, I feel so empty here.", "My old dog died and I am heartbroken.",
            "She left, and the house feels so empty.", "I am sad, I lost my only friend.",
            "I cried all night, I miss him so.", "It is over, I feel lonely and sad.",
            "Nobody came, so I cried and went home.", "I lost her, and it still hurts so much.",
        ),
        "worried": (
            "I am worried, she should be here by now.", "What if something goes wrong tonight?",
            "I am afraid the test will be bad.", "I cannot sleep, what if I lose my job?",
            "I am so nervous about the doctor.", "Is he safe? He does not answer, I am worried.",
            "What if they find out? I am afraid.", "I hope it is not serious, I am scared.",
            "I am nervous, something may go wrong.", "What if the doctor finds something bad?",
            "I am scared, is it safe to go there?", "I am worried that we will not make it.",
        ),
        "surprise": (
            "Wow, I never expected to see you here!", "What? I cannot believe you are back!",
            "Oh my, where did that come from?", "No way, you really did that alone?",
            "Wow, suddenly everybody was there!", "Really? I had no idea about that!",
            "I cannot believe it, is that really you?", "What, already? I never expected that!",
            "No way, that was so unexpected!", "Oh wow, I had no idea you could sing!",
            "Oh my, suddenly the light went on!", "Really? No way, who told you that?",
        ),
    },
    "zh": {
        "neutral": (
            "会议星期二九点开始。", "表格在第二页上。", "公交车在图书馆门口停。", "备用的纸放在架子上。",
            "报告一共有十二页。", "办公室星期五开到六点。", "第二页写着开放时间。", "火车在办公室旁边的车站停。",
            "他九点把报告放在桌子上。", "车站旁边的商店星期五开门。", "名单在报告的第一页上。", "会议室在二楼的左边。",
        ),
        "angry": (
            "你又骗我,我真的很生气!", "够了,别再找借口了!", "你怎么敢这样跟我说话!", "气死我了,你从来不听!",
            "够了,给我滚出去!", "你又撒谎,真是气死我了!", "我受够了,别再骗我!", "你怎么敢拿我的钱!",
            "我最讨厌你的借口!", "你从来不听,我很生气!", "我受够了,你凭什么怪我!", "滚出去,我讨厌撒谎的人!",
        ),
        "happy": (
            "太好了,我们赢了比赛!", "今天真开心,我喜欢这里!", "考过了,今晚一起庆祝!", "太棒了,真的谢谢你!",
            "我好喜欢这个生日礼物!", "好消息,宝宝出生了,真高兴!", "你能来我真高兴,太棒了!", "我们赢了,我好开心!",
            "我得到那份工作了,庆祝一下!", "谢谢你,这让我很开心!",
            "和你跳舞真高兴,太好了!", "今天是最开心的一天,太棒了!",
        ),
        "sad": (
            "她走了以后我好想她。", "我觉得很孤单,没有人找我。", "他离开了我,我一直在哭。", "什么都没有了,都结束了。",
            "我好想家,心里空空的。", "我的老狗死了,我很难过。", "她离开了,家里空空的。", "我很难过,失去了朋友。",
            "我哭了一夜,好想他。", "都结束了,我又孤单又难过。", "没有人来,我哭着回家了。", "我失去了她,心里好痛。",
        ),
        "worried": (
            "我很担心,她怎么还没到?", "万一今晚出事了怎么办?", "我怕检查结果不好。", "我睡不着,万一丢了工作呢?",
            "要见医生,我好紧张。", "他不接电话,我很担心。", "万一他们发现了怎么办?", "但愿不严重,我很害怕。",
            "我好紧张,怕会出事。", "万一医生查出问题怎么办?", "我害怕,去那里安全吗?", "我担心我们来不及了。",
        ),
        "surprise": (
            "哇,没想到在这里见到你!", "什么?你居然回来了!", "天哪,这是哪里来的?", "不会吧,真是你一个人做的?",
            "哇,突然大家都来了!", "真的吗?我完全不知道!", "不敢相信,居然是你!", "什么,这么快?没想到!",
            "不会吧,太突然了!", "哇,没想到你居然会唱歌!", "天哪,突然灯就亮了!", "真的吗?不会吧,谁说的?",
        ),
    },
}

#: (emotion of the words, emotions that may be meant, sentence)
MISLEADING: dict[str, tuple[tuple[str, tuple[str, ...], str], ...]] = {
    "en": (
        ("sad", ("happy", "surprise"), "I cried so much when you walked in."),
        ("sad", ("neutral", "worried"), "She died in nineteen ten, and he left."),
        ("angry", ("happy", "surprise"), "Stop it, get out, you did not!"),
        ("angry", ("happy", "neutral"), "I hate how good you are at this!"),
        ("happy", ("sad", "worried"), "It was the best day, we were so happy then."),
        ("happy", ("angry", "worried"), "I am glad you love it so much."),
        ("happy", ("neutral", "sad"), "Thank you, the flowers are lovely."),
        ("worried", ("angry", "surprise"), "What if I told you that I know?"),
        ("worried", ("happy", "neutral"), "I was so nervous, and scared of the doctor."),
        ("surprise", ("angry", "sad"), "I cannot believe you really did that."),
        ("surprise", ("sad", "worried"), "I never expected that she would go."),
        ("neutral", ("angry", "sad"), "The report was on the table at nine."),
        ("neutral", ("surprise", "happy"), "The list of names is open on Friday."),
    ),
    "zh": (
        ("sad", ("happy", "surprise"), "你进门的时候我哭了好久。"),
        ("sad", ("neutral", "worried"), "那年他离开了,后来她死了。"),
        ("angry", ("happy", "surprise"), "别骗我,滚,你怎么敢!"),
        ("angry", ("happy", "neutral"), "真讨厌,你怎么这么厉害!"),
        ("happy", ("sad", "worried"), "那是最开心的一天,那时真高兴。"),
        ("happy", ("angry", "worried"), "你这么喜欢,我真高兴。"),
        ("happy", ("neutral", "sad"), "谢谢你,这些花太好了。"),
        ("worried", ("angry", "surprise"), "万一我早就知道了怎么办?"),
        ("worried", ("happy", "neutral"), "那时我好紧张,很怕医生。"),
        ("surprise", ("angry", "sad"), "不敢相信你居然这样做。"),
        ("surprise", ("sad", "worried"), "没想到她突然就走了。"),
        ("neutral", ("angry", "sad"), "报告九点就在桌子上。"),
        ("neutral", ("surprise", "happy"), "名单星期五在办公室。"),
    ),
}

SARCASTIC: dict[str, tuple[tuple[str, tuple[str, ...], str], ...]] = {
    "en": (
        ("happy", ("angry", "sad"), "Oh great, the train is late, wonderful."),
        ("happy", ("angry", "worried"), "Lovely, you forgot it again, thank you so much."),
        ("happy", ("sad", "worried"), "Wonderful, so I celebrate alone, what fun."),
        ("happy", ("angry", "sad", "neutral"), "Yes, the best job in the world, I love it."),
        ("surprise", ("angry", "neutral"), "Wow, you are late again, so unexpected."),
        ("surprise", ("sad", "angry"), "No way, you really forgot my birthday?"),
        ("worried", ("happy", "neutral"), "Oh, I am so scared of your little cat."),
        ("sad", ("happy", "angry"), "Poor you, so lonely on your yacht."),
        ("angry", ("happy", "surprise"), "How dare you bake me such a cake!"),
    ),
    "zh": (
        ("happy", ("angry", "sad"), "太好了,火车又晚点,真棒。"),
        ("happy", ("angry", "worried"), "真好,你又忘了,谢谢你啊。"),
        ("happy", ("sad", "worried"), "太棒了,我一个人庆祝,真开心。"),
        ("happy", ("angry", "sad", "neutral"), "是啊,最好的工作,我好喜欢。"),
        ("surprise", ("angry", "neutral"), "哇,你又迟到,真没想到。"),
        ("surprise", ("sad", "angry"), "不会吧,你居然忘了我的生日?"),
        ("worried", ("happy", "neutral"), "哎呀,我好害怕你的小猫。"),
        ("sad", ("happy", "angry"), "好可怜,你在游艇上好孤单。"),
        ("angry", ("happy", "surprise"), "你怎么敢做这么好吃的蛋糕!"),
    ),
}

UNINFORMATIVE: dict[str, tuple[str, ...]] = {
    "en": (
        "So that is how it is.", "Well, there you are.", "Come here and look at this.", "I told you about it before.",
        "Did you hear what he said?", "It was him who did it.", "They are all there now.", "You know what this means.",
        "That is what she said to me.", "Now it is your turn.", "I saw it with my own eyes.", "Tell me about it later.",
        "He said it to all of us.", "And that was that.",
    ),
    "zh": (
        "原来是这样啊。", "你在这里呀。", "你过来看看这个。", "这件事我跟你说过。",
        "你听到他说的话了吗?", "这是他做的。",
        "他们现在都在那里。", "你知道这是什么意思。", "她就是这么跟我说的。", "现在轮到你了。", "我亲眼看到的。",
        "以后再跟我说吧。", "他跟我们大家都说了。", "事情就是这样。",
    ),
}
# fmt: on


def say(state: str, emotion: str, language: str, rng: np.random.Generator) -> tuple[str, str, str]:
    """Choose a sentence.

    Parameters
    ----------
    state : {"informative", "uninformative", "at odds"}
        How the words relate to the emotion that is felt.
    emotion : str
        The emotion that is felt.
    language : {"en", "zh"}
    rng : numpy.random.Generator

    Returns
    -------
    sentence, words, kind : str
        The transcript; the emotion that its words express ("neutral" for an uninformative one); and "plain",
        "misleading", "sarcastic" or "uninformative".
    """
    if state == "informative":
        return str(rng.choice(PLAIN[language][emotion])), emotion, "plain"
    if state == "uninformative":
        return str(rng.choice(UNINFORMATIVE[language])), "neutral", "uninformative"
    kind = str(rng.choice(["misleading", "sarcastic", "borrowed"], p=[0.25, 0.3, 0.45]))
    bank = {"misleading": MISLEADING, "sarcastic": SARCASTIC}.get(kind)
    fitting = [row for row in bank[language] if emotion in row[1]] if bank else []
    if fitting:
        words, _, sentence = fitting[rng.integers(len(fitting))]
        return sentence, words, kind
    # Another emotion's plain sentence: without these, a misleading sentence would be a fingerprint of its label.
    words = str(rng.choice([other for other in PLAIN[language] if other != emotion]))
    return str(rng.choice(PLAIN[language][words])), words, "misleading"
