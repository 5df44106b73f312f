"""The words of the built-in prompts: what may stand in each place of the grammar."""

BEINGS = (
    "an old fisherman, a young violinist, a girl in a raincoat, a bearded "
    "blacksmith, an astronaut, a ballet dancer, "
    "a street musician, a beekeeper, a lighthouse keeper, a chess player, a boy "
    "flying a kite, a nurse on a break, "
    "a red fox, a snowy owl, a tabby cat, a golden retriever, a humpback whale, a "
    "hummingbird, a grey wolf, a panda, "
    "a sea turtle, an octopus, a white horse, a hedgehog, an elephant calf, a "
    "peacock, a chameleon, a flock of cranes, "
    "a clockwork robot, a paper dragon, a friendly ghost, a stone giant, a mermaid, "
    "a knight in rusty armour"
)
THINGS = (
    "a steam locomotive, a wooden sailing boat, a yellow taxi, a hot air balloon, a "
    "vintage bicycle, a grand piano, "
    "a glass teapot, a bowl of ramen, a stack of pancakes, a bouquet of tulips, a "
    "bonsai tree, a stack of old books, "
    "a brass telescope, a pocket watch, a record player, a snow globe, a lantern, a "
    "treehouse, a stone bridge, "
    "a windmill, a lighthouse, a greenhouse, a carousel, a space station, a castle "
    "made of ice, a floating island"
)
SETTINGS = (
    "in a misty forest, on a crowded market street, in a flooded library, on a "
    "mountain ridge, in a desert at dusk, "
    "under the northern lights, in a field of lavender, on a rainy city street at "
    "night, in a sunlit kitchen, "
    "beside a frozen lake, on a rocky beach, in an abandoned factory, on the deck of "
    "a ship, in a bamboo grove, "
    "in a small attic room, at the edge of a volcano, in a medieval village, on the "
    "surface of the moon, "
    "inside a glass dome, in a subway station, in a wheat field before a storm, "
    "under cherry trees in bloom, "
    "on a quiet canal, in a neon-lit alley, in a snowed-in valley, among giant "
    "mushrooms, at the bottom of the sea, "
    "in a workshop full of tools, on a rooftop garden, in a foggy harbour"
)
STYLES = (
    "oil painting, watercolour, pencil sketch, ink drawing, linocut print, charcoal "
    "drawing, gouache illustration, "
    "stained glass, mosaic, paper cut-out, embroidery, clay animation, low-poly "
    "render, pixel art, isometric drawing, "
    "35 mm photograph, black and white photograph, long-exposure photograph, macro "
    "photograph, polaroid, blueprint, "
    "art nouveau poster, comic book panel, children's book illustration, cinematic "
    "still, studio photograph, ukiyo-e"
)
VIEWS = (
    "close-up, wide shot, seen from above, seen from below, in profile, in "
    "silhouette, centred, from far away, "
    "through a window, reflected in water, symmetrical composition, shallow depth of field"
)
LIGHTS = (
    "soft morning light, golden hour, candlelight, harsh midday sun, moonlight, "
    "overcast sky, dramatic rim light, "
    "neon light, fog, light rain, falling snow, a clear starry sky"
)
COLOURS = "red, orange, yellow, green, blue, purple, pink, brown, black, white"
OBJECTS = (
    "cube, ball, mug, chair, umbrella, backpack, vase, candle, scarf, bicycle, "
    "apple, book, kettle, lamp, toy car, "
    "bench"
)
RELATIONS = "on top of, next to, to the left of, to the right of, behind, in front of, under"
COUNTED = (
    "apples, candles, umbrellas, chairs, kites, rabbits, sailing boats, balloons, "
    "mushrooms, paper planes, clocks, "
    "owls, bicycles, pumpkins"
)
NUMBERS = "two, three, four, five"
WORDS = (
    "open, bakery, tomorrow, silence, north, welcome home, dream, no parking, fresh "
    "fish, the end, library, hello, "
    "jazz, spring, platform nine, be kind"
)
CARRIERS = (
    "a wooden shop sign, a neon sign, a chalkboard, a street poster, a birthday "
    "cake, a book cover, a T-shirt, "
    "a stone archway, a flag, a handwritten letter"
)
MOTIONS = {
    "being": (
        "walks slowly, turns its head towards the viewer, runs from left to right, looks "
        "up, jumps over a puddle, "
        "spins around once, waves, climbs upwards, shakes off the rain, drifts away"
    ),
    "thing": (
        "slowly rotates, sways in the wind, rises into the air, tips over, lights up, "
        "moves away into the distance, "
        "moves from right to left, is covered by snow, falls apart, comes closer"
    ),
}
CAMERAS = (
    "the camera pans to the right, the camera pans to the left, the camera circles "
    "around it, slow zoom in, "
    "slow zoom out, the camera rises, static camera, handheld camera, tracking shot, time-lapse"
)
