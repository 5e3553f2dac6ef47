"""The status page as it is sent; `make test-interop` shows it in a browser."""

import re

from rt2_jax.serve.status_page import POLICY, status_page


def test_it_is_one_document_that_takes_nothing_from_elsewhere():
    page = status_page()
    assert page.count("<style>") == page.count("<script>") == 1 and "/*" + "CSS*/" not in page
    assert not re.search(r'(?:src|href)="(?!data:)', page) and "@import" not in page and "url(" not in page
    assert [found for found in re.findall(r"https?://[^\"' ]+", page) if "w3.org" not in found] == []


def test_no_text_of_a_robot_is_read_as_html():
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", status_page())


def test_a_browser_gets_the_page_and_another_program_the_paths(kit):
    async def run():
        async with kit.running() as running:
            async with running.http.get("/", headers={"Accept": "text/html,*/*"}) as reply:
                assert reply.status == 200 and reply.content_type == "text/html"
                assert reply.headers["Content-Security-Policy"] == POLICY
                assert await reply.text() == status_page()
            async with running.http.get("/", headers={"Accept": "*/*"}) as reply:
                assert reply.content_type == "text/plain" and "/v1/act" in await reply.text()

    kit.really(run())


def test_a_page_that_keeps_frames_asks_for_new_ones_alone(kit):
    async def run():
        async with kit.running() as running, kit.Robot.connected(running.http) as robot:
            for tag in (1, 2, 3):
                await robot.act(tag)
            async with running.http.get("/status.json?since=2") as reply:
                status = await reply.json()
        (frame,) = status["frames"]
        assert frame["number"] == 3 and frame["action"][0] == 3 and frame["image"].startswith("data:image/jpeg;base64,")
        assert {"limited", "held", "names", "units", "text", "instruction", "total_ms"} <= frame.keys()
        assert {"answers", "refusals", "waiting", "total_ms", "time"} <= status["history"][-1].keys()

    kit.really(run())
